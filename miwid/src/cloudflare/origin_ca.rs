//! Certificates of Origin CA: made, listed, revoked.
//!
//! The identifier is the serial number in decimal today; it has been hexadecimal, and schemas differ about its length. It is
//! an opaque text here.

use std::time::SystemTime;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{
    api::Api,
    error::{Class, Error},
};

/// Pages of fifty; an account has some hundred at most, unless something runs wild.
const PAGES_MAX: usize = 20;

/// A fresh certificate.
#[derive(Clone, Debug)]
pub struct Created {
    pub id: String,
    /// The leaf alone, as a rule.
    pub certificate: String,
}

/// One of the zone's certificates.
#[derive(Clone, Debug)]
pub struct Issued {
    pub id: String,
    pub certificate: String,
    pub is_revoked: bool,
}

impl Api {
    /// Not idempotent: every call that arrives makes a certificate. `key_type` is `ecc` or `rsa`.
    pub async fn create(
        &self,
        csr: &str,
        hosts: &[String],
        key_type: &str,
        days: u32,
        now: SystemTime,
    ) -> Result<Created, Error> {
        let body = json!({
            "csr": csr,
            "hostnames": hosts,
            "request_type": format!("origin-{key_type}"),
            "requested_validity": days,
        });
        let document = self.call(Method::POST, "/certificates", Some(&body), now).await?;
        let result = &document["result"];
        match (result["id"].as_str(), result["certificate"].as_str()) {
            (Some(id), Some(certificate)) => Ok(Created { id: id.to_owned(), certificate: certificate.to_owned() }),
            _ => {
                let message = "Cloudflare says success, but its answer has no certificate";
                Err(Error { may_be_done: true, ..Error::new(Class::Transient, message, None) })
            }
        }
    }

    /// Every certificate of the zone that `host` is in.
    pub async fn list(&self, host: &str, now: SystemTime) -> Result<Vec<Issued>, Error> {
        let zone = self.zone(host, now).await?;
        let mut all = Vec::new();
        for page in 1..=PAGES_MAX {
            let path = format!("/certificates?zone_id={}&page={page}&per_page=50", escaped(&zone));
            let document = self.call(Method::GET, &path, None, now).await?;
            let listed = document["result"].as_array().map(Vec::as_slice).unwrap_or_default();
            all.extend(listed.iter().filter_map(issued));
            let pages = document["result_info"]["total_pages"].as_u64().unwrap_or_default();
            if listed.is_empty() || page as u64 >= pages {
                break;
            }
        }
        Ok(all)
    }

    /// Cannot be undone. One that is revoked already counts as done.
    pub async fn revoke(&self, id: &str, now: SystemTime) -> Result<(), Error> {
        self.call(Method::DELETE, &format!("/certificates/{}", escaped(id)), None, now).await.map(drop)
    }
}

fn issued(value: &Value) -> Option<Issued> {
    Some(Issued {
        id: value["id"].as_str()?.to_owned(),
        certificate: value["certificate"].as_str()?.to_owned(),
        is_revoked: value["revoked_at"].as_str().is_some_and(|it| !it.is_empty()),
    })
}

pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
