//! TXT records of the account's zones, for authorities that look into the DNS.

use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::{Value, json};

use super::{
    api::Api,
    error::{Class, Error},
    origin_ca::escaped,
};

/// Seconds; the least that Cloudflare takes of everybody.
const TTL: u32 = 120;
/// What our records are known by.
const COMMENT: &str = "miwid";
/// No challenge takes so long: a record that is older belongs to a request that broke off.
const STALE: Duration = Duration::from_secs(3600);

/// A record that is there for a challenge.
#[derive(Clone, Debug)]
pub struct Record {
    zone: String,
    id: String,
    /// To be taken away again; somebody else's stays.
    is_ours: bool,
}

impl Api {
    /// One that is there already with the same content is as good.
    pub async fn add_txt(&self, name: &str, value: &str, now: SystemTime) -> Result<Record, Error> {
        let zone = self.zone(name, now).await?;
        let path = format!("/zones/{}/dns_records", escaped(&zone));
        let content = format!("\"{value}\"");
        let body = json!({ "type": "TXT", "name": name, "content": content, "ttl": TTL, "comment": COMMENT });
        match self.call(Method::POST, &path, Some(&body), now).await {
            Ok(document) => match document["result"]["id"].as_str() {
                Some(id) => Ok(Record { zone, id: id.to_owned(), is_ours: true }),
                None => {
                    let message = "Cloudflare says success, but its record has no identifier";
                    Err(Error::new(Class::Transient, message, None))
                }
            },
            Err(error) if error.class == Class::Exists => {
                let path = format!("{path}?type=TXT&name={}&per_page=50", escaped(name));
                let document = self.call(Method::GET, &path, None, now).await?;
                let is_same = |it: &&Value| it["content"].as_str().is_some_and(|it| it.trim_matches('"') == value);
                let found =
                    document["result"].as_array().into_iter().flatten().find(is_same).ok_or_else(|| error.clone())?;
                let id = found["id"].as_str().ok_or(error)?.to_owned();
                Ok(Record { zone, id, is_ours: found["comment"] == COMMENT })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes away what requests that broke off have left under this name; how many records that were.
    pub async fn sweep_txt(&self, name: &str, now: SystemTime) -> Result<usize, Error> {
        let zone = self.zone(name, now).await?;
        let path = format!("/zones/{}/dns_records", escaped(&zone));
        let listed = format!("{path}?type=TXT&name={}&per_page=50", escaped(name));
        let document = self.call(Method::GET, &listed, None, now).await?;
        let stale = document["result"].as_array().into_iter().flatten().filter(|it| is_left_behind(it, now));
        let ids: Vec<String> = stale.filter_map(|it| it["id"].as_str().map(str::to_owned)).collect();
        for id in &ids {
            self.remove_txt(&Record { zone: zone.clone(), id: id.clone(), is_ours: true }, now).await?;
        }
        Ok(ids.len())
    }

    /// One that somebody else has taken away is away, and one that somebody else has made is theirs.
    pub async fn remove_txt(&self, record: &Record, now: SystemTime) -> Result<(), Error> {
        if !record.is_ours {
            return Ok(());
        }
        let path = format!("/zones/{}/dns_records/{}", escaped(&record.zone), escaped(&record.id));
        match self.call(Method::DELETE, &path, None, now).await {
            Err(error) if error.class != Class::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Ours, and older than any challenge lasts. One whose age is not told may be in use.
fn is_left_behind(record: &Value, now: SystemTime) -> bool {
    let made = record["created_on"].as_str().and_then(|it| it.parse::<jiff::Timestamp>().ok()).map(SystemTime::from);
    record["comment"] == COMMENT && made.and_then(|it| now.duration_since(it).ok()).is_some_and(|it| it >= STALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_records_of_ours_are_left_behind() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        // 2027-01-15T08:00:00Z
        for (comment, made, expected) in [
            ("miwid", "2027-01-15T07:00:00Z", true),
            ("miwid", "2027-01-15T07:00:00.5Z", false),
            ("miwid", "2027-01-16T07:00:00Z", false),
            ("miwid", "once", false),
            ("somebody's", "2020-01-01T00:00:00Z", false),
        ] {
            let record = json!({ "comment": comment, "created_on": made });
            assert_eq!(is_left_behind(&record, now), expected, "{record}");
        }
        assert!(!is_left_behind(&json!({ "comment": "miwid" }), now));
    }
}
