//! Asks Cloudflare all that the doctor wants to know. What cannot be learned is part of the answer.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use http::Method;
use serde_json::Value;

use super::{
    api::Api,
    doctor::{Finding, Here, There, Token, Zone, judge},
    error::Error,
    origin_ca::escaped,
};

const SETTINGS: [&str; 3] = ["ssl", "tls_client_auth", "min_tls_version"];
/// Records that lead somewhere.
const LEADING: [&str; 3] = ["A", "AAAA", "CNAME"];

/// Everything that is found wrong, worst first. Without a token only this side is looked at.
pub async fn examine(api: Option<&Api>, here: &Here, now: SystemTime) -> Vec<Finding> {
    let mut there = There { token: None, places: BTreeMap::new(), zones: BTreeMap::new(), records: BTreeMap::new() };
    if let Some(api) = api {
        let token = api.token_state(now).await;
        let is_dead = token.as_ref().is_ok_and(|it| it.status != "active");
        there.token = Some(token);
        // One that is known to be dead would only be refused again and again.
        if !is_dead {
            look(api, here, &mut there, now).await;
        }
    }
    judge(here, &there, now)
}

async fn look(api: &Api, here: &Here, there: &mut There, now: SystemTime) {
    for site in &here.sites {
        let place = api.zone(&site.host, now).await;
        if let Ok(id) = &place {
            if !there.zones.contains_key(id) {
                there.zones.insert(id.clone(), api.zone_state(id, now).await);
            }
            there.records.insert(site.host.clone(), api.leads(id, &site.host, now).await);
        }
        there.places.insert(site.host.clone(), place);
    }
}

impl Api {
    async fn token_state(&self, now: SystemTime) -> Result<Token, Error> {
        let result = self.verified(now).await?;
        let ends = result["expires_on"].as_str().and_then(|it| it.parse::<jiff::Timestamp>().ok());
        let status = result["status"].as_str().unwrap_or("unknown").to_owned();
        Ok(Token { status, ends: ends.map(Into::into) })
    }

    async fn zone_state(&self, id: &str, now: SystemTime) -> Zone {
        let path = format!("/zones/{}", escaped(id));
        let document = match self.call(Method::GET, &path, None, now).await {
            Ok(document) => document,
            Err(error) => return Zone { name: id.to_owned(), unreadable: Some(error), ..Zone::default() },
        };
        let text = |key: &str| document["result"][key].as_str().unwrap_or_default().to_owned();
        let mut settings = BTreeMap::new();
        for name in SETTINGS {
            let setting = self.call(Method::GET, &format!("{path}/settings/{name}"), None, now).await;
            if let Ok(Value::String(value)) = setting.map(|mut it| it["result"]["value"].take()) {
                settings.insert(name, value);
            }
        }
        let listed = format!("/certificates?zone_id={}&per_page=5", escaped(id));
        Zone {
            name: text("name"),
            status: text("status"),
            is_paused: document["result"]["paused"] == true,
            settings,
            certificates: self.call(Method::GET, &listed, None, now).await.err(),
            unreadable: None,
        }
    }

    /// Which of the records that lead a visitor of `host` somewhere are proxied. A host without any has those of the wildcard
    /// beside it.
    async fn leads(&self, zone: &str, host: &str, now: SystemTime) -> Result<Vec<bool>, Error> {
        let wildcard = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        for name in [Some(host.to_owned()), wildcard].into_iter().flatten() {
            let path = format!("/zones/{}/dns_records?name={}&per_page=50", escaped(zone), escaped(&name));
            let document = self.call(Method::GET, &path, None, now).await?;
            let listed = document["result"].as_array().map(Vec::as_slice).unwrap_or_default();
            let leading = listed.iter().filter(|it| it["type"].as_str().is_some_and(|it| LEADING.contains(&it)));
            let proxied: Vec<bool> = leading.map(|it| it["proxied"] == true).collect();
            if !proxied.is_empty() {
                return Ok(proxied);
            }
        }
        Ok(Vec::new())
    }
}

/// How long a token is good for, where it ends at all.
impl Api {
    pub async fn token_ends_in(&self, now: SystemTime) -> Result<(String, Option<Duration>), Error> {
        let Token { status, ends } = self.token_state(now).await?;
        Ok((status, ends.map(|it| it.duration_since(now).unwrap_or_default())))
    }
}
