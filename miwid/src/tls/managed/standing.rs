//! How it stands with one certificate, for operators.

use std::time::SystemTime;

use crate::tls::Certificate;

#[derive(Clone, Debug)]
pub struct Standing {
    pub name: String,
    /// What is wanted; what is there may be less.
    pub hosts: Vec<String>,
    /// `cloudflare-origin`, `local` or `imported`.
    pub issuer: String,
    /// `configuration` or `operator`.
    pub origin: String,
    /// `None` until the first is there.
    pub certificate: Option<Certificate>,
    /// Imported ones have none.
    pub next_renewal: Option<SystemTime>,
    pub attempts: u32,
    pub last_error: Option<String>,
}

impl Standing {
    /// In one word.
    pub fn state(&self, now: SystemTime) -> &'static str {
        match &self.certificate {
            Some(it) if it.not_after <= now => "expired",
            _ if self.last_error.is_some() => "failing",
            Some(_) => "ready",
            None => "pending",
        }
    }
}
