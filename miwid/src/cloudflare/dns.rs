//! TXT records of the account's zones, for authorities that look into the DNS.

use std::time::SystemTime;

use http::Method;
use serde_json::{Value, json};

use super::{
    api::Api,
    error::{Class, Error},
    origin_ca::escaped,
};

/// Seconds; the least that Cloudflare takes of everybody.
const TTL: u32 = 120;

/// A record of ours, to be taken away again.
#[derive(Clone, Debug)]
pub struct Record {
    zone: String,
    id: String,
}

impl Api {
    /// One that is there already with the same content is as good.
    pub async fn add_txt(&self, name: &str, value: &str, now: SystemTime) -> Result<Record, Error> {
        let zone = self.zone(name, now).await?;
        let path = format!("/zones/{}/dns_records", escaped(&zone));
        let content = format!("\"{value}\"");
        let body = json!({ "type": "TXT", "name": name, "content": content, "ttl": TTL, "comment": "miwid" });
        let made = match self.call(Method::POST, &path, Some(&body), now).await {
            Ok(document) => document["result"]["id"].as_str().map(str::to_owned),
            Err(error) if error.class == Class::Exists => {
                let path = format!("{path}?type=TXT&name={}&per_page=50", escaped(name));
                let document = self.call(Method::GET, &path, None, now).await?;
                let is_same = |it: &&Value| it["content"].as_str().is_some_and(|it| it.trim_matches('"') == value);
                let found = document["result"].as_array().into_iter().flatten().find(is_same);
                Some(found.and_then(|it| it["id"].as_str()).ok_or(error)?.to_owned())
            }
            Err(error) => return Err(error),
        };
        let nameless =
            || Error::new(Class::Transient, "Cloudflare says success, but its record has no identifier", None);
        Ok(Record { zone, id: made.ok_or_else(nameless)? })
    }

    /// One that somebody else has taken away is away.
    pub async fn remove_txt(&self, record: &Record, now: SystemTime) -> Result<(), Error> {
        let path = format!("/zones/{}/dns_records/{}", escaped(&record.zone), escaped(&record.id));
        match self.call(Method::DELETE, &path, None, now).await {
            Err(error) if error.class != Class::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
