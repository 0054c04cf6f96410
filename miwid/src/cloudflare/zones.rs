//! Which zone a host is in, and whether the token is any good: advice, never a condition.

use std::{sync::PoisonError, time::SystemTime};

use http::Method;
use serde_json::Value;

use super::{
    api::Api,
    error::{Class, Error},
    origin_ca::escaped,
};

impl Api {
    /// As configured; else labels are taken off the front until a zone has that name.
    pub async fn zone(&self, host: &str, now: SystemTime) -> Result<String, Error> {
        if let Some(zone) = &self.settings.zone_id {
            return Ok(zone.clone());
        }
        let host = host.strip_prefix("*.").unwrap_or(host);
        if let Some(known) = self.zones.lock().unwrap_or_else(PoisonError::into_inner).get(host) {
            return Ok(known.clone());
        }
        for name in candidates(host) {
            let path = format!("/zones?name={}&per_page=50", escaped(name));
            let document = self.call(Method::GET, &path, None, now).await?;
            let found = document["result"].as_array().map(Vec::as_slice).unwrap_or_default();
            let account = self.settings.account_id.as_deref();
            let ours = found.iter().filter(|it| account.is_none_or(|id| it["account"]["id"] == id));
            let ids: Vec<&str> = ours.filter_map(|it| it["id"].as_str()).collect();
            match ids[..] {
                [] => {}
                [id] => {
                    let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
                    zones.insert(host.to_owned(), id.to_owned());
                    return Ok(id.to_owned());
                }
                _ => {
                    let message = format!("several accounts have a zone `{name}`");
                    return Err(Error::new(Class::Config, message, Some("set `[cloudflare] account_id` or `zone_id`")));
                }
            }
        }
        let message = format!("no zone for `{host}` is found: there is none, or the token may not read it");
        Err(Error::new(
            Class::Config,
            message,
            Some("set `[cloudflare] zone_id`, or give the token Zone > Zone > Read"),
        ))
    }

    /// The state of the token by its own account: `active`, `disabled` or `expired`. It proves no rights.
    pub async fn verify(&self, now: SystemTime) -> Result<String, Error> {
        Ok(self.verified(now).await?["status"].as_str().unwrap_or("unknown").to_owned())
    }

    pub(super) async fn verified(&self, now: SystemTime) -> Result<Value, Error> {
        let of_account = self.token().await.starts_with("cfat_");
        let path = match (&self.settings.account_id, of_account) {
            (Some(account), true) => format!("/accounts/{}/tokens/verify", escaped(account)),
            _ => "/user/tokens/verify".to_owned(),
        };
        Ok(self.call(Method::GET, &path, None, now).await?["result"].take())
    }
}

/// `a.b.example.com` -> itself, `b.example.com`, `example.com`.
fn candidates(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(host), |it| it.split_once('.').map(|(_, parent)| parent)).filter(|it| it.contains('.'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn zones_are_looked_for_from_the_whole_name_upwards() {
        let found: Vec<&str> = super::candidates("a.b.example.com").collect();
        assert_eq!(found, ["a.b.example.com", "b.example.com", "example.com"]);
        assert_eq!(super::candidates("localhost").count(), 0);
    }
}
