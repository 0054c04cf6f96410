//! What is to leave Cloudflare's cache.

use std::{collections::BTreeMap, time::SystemTime};

use http::{Method, Uri};
use serde_json::{Value, json};

use super::{
    api::Api,
    error::{Class, Error},
    origin_ca::escaped,
};

/// Of one kind in one request.
const ITEMS_MAX: usize = 30;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    Everything,
    /// Whole addresses.
    Urls(Vec<String>),
    Tags(Vec<String>),
    /// Without a scheme: `shop.example.com/images`.
    Prefixes(Vec<String>),
    Hosts(Vec<String>),
}

impl Purge {
    /// What is asked of which zone, where the zone can be told: one request's worth each. Pure.
    fn requests(&self) -> Result<Vec<(Option<String>, Value)>, Error> {
        let (key, items) = match self {
            Self::Everything => return Ok(vec![(None, json!({ "purge_everything": true }))]),
            Self::Urls(items) => ("files", items),
            Self::Tags(items) => ("tags", items),
            Self::Prefixes(items) => ("prefixes", items),
            Self::Hosts(items) => ("hosts", items),
        };
        let mut by_host: BTreeMap<Option<String>, Vec<&String>> = BTreeMap::new();
        for item in items {
            by_host.entry(self.host(item)?).or_default().push(item);
        }
        let batch = |(host, items): (Option<String>, Vec<&String>)| {
            let bodies: Vec<Value> = items.chunks(ITEMS_MAX).map(|it| json!({ key: it })).collect();
            bodies.into_iter().map(move |it| (host.clone(), it))
        };
        Ok(by_host.into_iter().flat_map(batch).collect())
    }

    fn host(&self, item: &str) -> Result<Option<String>, Error> {
        let wrong = |message: String, hint| Err(Error::new(Class::Config, message, Some(hint)));
        match self {
            Self::Urls(_) => {
                let url = item.parse::<Uri>().ok().filter(|it| matches!(it.scheme_str(), Some("http" | "https")));
                match url.as_ref().and_then(Uri::host) {
                    Some(host) => Ok(Some(host.to_ascii_lowercase())),
                    None => wrong(format!("`{item}` is no whole address"), "write it as https://shop.example.com/page"),
                }
            }
            Self::Tags(_) if !is_tag(item) => {
                wrong(format!("`{item}` can be no tag"), "tags are printable ASCII without blanks and commas")
            }
            Self::Prefixes(_) | Self::Hosts(_) if item.contains("://") || item.is_empty() => {
                wrong(format!("`{item}` has a scheme"), "write it as shop.example.com/images, or shop.example.com")
            }
            Self::Prefixes(_) | Self::Hosts(_) => {
                Ok(Some(item.split('/').next().unwrap_or_default().to_ascii_lowercase()))
            }
            _ => Ok(None),
        }
    }
}

fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_graphic() && it != b',')
}

impl Api {
    /// How many items have left the caches; `host` says the zone where the items do not.
    pub async fn purge(&self, purge: &Purge, host: &str, now: SystemTime) -> Result<usize, Error> {
        let mut count = 0;
        for (of, body) in purge.requests()? {
            let zone = self.zone(of.as_deref().unwrap_or(host), now).await?;
            let path = format!("/zones/{}/purge_cache", escaped(&zone));
            let asked = self.call(Method::POST, &path, Some(&body), now).await;
            asked.map_err(|error| match error.class {
                Class::Auth => {
                    Error { hint: Some("give the token the permission Zone > Cache Purge > Purge"), ..error }
                }
                _ => error,
            })?;
            count +=
                body.as_object().into_iter().flatten().map(|(_, it)| it.as_array().map_or(1, Vec::len)).sum::<usize>();
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_go_into_one_request() {
        let urls = |count| Purge::Urls((0..count).map(|it| format!("https://a.test/{it}")).collect());
        for (count, expected) in [(1, 1), (30, 1), (31, 2), (91, 4)] {
            let requests = urls(count).requests().expect("good addresses");
            assert_eq!(requests.len(), expected, "{count}");
            let items: usize = requests.iter().map(|(_, it)| it["files"].as_array().map_or(0, Vec::len)).sum();
            assert_eq!(items, count);
            assert!(requests.iter().all(|(host, _)| host.as_deref() == Some("a.test")));
        }
    }

    #[test]
    fn what_can_be_no_item_is_asked_of_nobody() {
        let texts = |it: &str| vec![it.to_owned()];
        for (purge, is_good) in [
            (Purge::Everything, true),
            (Purge::Urls(texts("https://A.test/x?y")), true),
            (Purge::Urls(texts("/x")), false),
            (Purge::Urls(texts("a.test/x")), false),
            (Purge::Urls(texts("ftp://a.test/x")), false),
            (Purge::Tags(texts("shop")), true),
            (Purge::Tags(texts("a b")), false),
            (Purge::Tags(texts("a,b")), false),
            (Purge::Tags(texts("")), false),
            (Purge::Prefixes(texts("a.test/images")), true),
            (Purge::Prefixes(texts("https://a.test/images")), false),
            (Purge::Hosts(texts("a.test")), true),
        ] {
            assert_eq!(purge.requests().is_ok(), is_good, "{purge:?}");
        }
    }
}
