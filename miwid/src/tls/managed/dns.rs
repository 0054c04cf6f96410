//! Proofs in the DNS, through Cloudflare. Every record is taken away again, also when nothing came of it.

use std::time::SystemTime;

use crate::cloudflare::{Api, Error, Record};

pub(super) struct Dns(Api);

impl Dns {
    pub(super) fn new(api: Api) -> Self {
        Self(api)
    }

    pub(super) async fn add(&self, host: &str, value: &str, now: SystemTime) -> Result<Record, Error> {
        let name = format!("_acme-challenge.{host}");
        match self.0.sweep_txt(&name, now).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(target: "tls", "{count} TXT records that were left behind under {name} are taken away");
            }
            Err(error) => tracing::info!(target: "tls", %error, "whether something was left behind cannot be seen"),
        }
        self.0.add_txt(&name, value, now).await
    }

    /// What cannot be taken away is told; it does no harm but to the eye.
    pub(super) async fn remove(&self, records: &[Record], now: SystemTime) {
        for record in records {
            if let Err(error) = self.0.remove_txt(record, now).await {
                tracing::warn!(target: "tls", %error, "a TXT record of a challenge stays in the zone");
            }
        }
    }
}
