//! Host names to sites (hot): exact name first, then `*.` one level up, then `_`.

use std::{collections::HashMap, sync::Arc};

use super::Site;

#[derive(Default)]
pub struct Hosts {
    exact: HashMap<Box<str>, Arc<Site>>,
    /// By what follows `*.`; matches exactly one label.
    wildcard: HashMap<Box<str>, Arc<Site>>,
    default: Option<Arc<Site>>,
}

impl Hosts {
    /// Adds a name as written in the configuration; the earlier site is returned when it was taken.
    pub fn insert(&mut self, name: &str, site: &Arc<Site>) -> Option<Arc<Site>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if name == "_" {
            return self.default.replace(site.clone());
        }
        match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.insert(parent.into(), site.clone()),
            None => self.exact.insert(name.into(), site.clone()),
        }
    }

    /// `host`: lower case, without port and final dot.
    pub fn find(&self, host: &str) -> Option<&Arc<Site>> {
        self.named(host).or(self.default.as_ref())
    }

    /// Like `find`, but the default does not count: whether a site claims this very host.
    pub fn named(&self, host: &str) -> Option<&Arc<Site>> {
        self.exact.get(host).or_else(|| {
            let (_, parent) = host.split_once('.')?;
            self.wildcard.get(parent)
        })
    }

    pub fn sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.default)
    }
}

/// The host of an authority as `find` wants it: `Shop.Example.com.:8080` is `shop.example.com`, `[::1]:80` is `::1`.
/// `None` when it is not a host (RFC 3986, 3.2.2) or the port is not a number.
pub fn host_of(authority: &str) -> Option<String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, after.strip_prefix(':').or(after.is_empty().then_some(""))?)
        }
        None => match memchr::memchr(b':', authority.as_bytes()) {
            Some(at) => (&authority[..at], &authority[at + 1..]),
            None => (authority, ""),
        },
    };
    let is_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    let valid = !host.is_empty() && host.bytes().all(is_host) && port.bytes().all(|b| b.is_ascii_digit());
    let bare = host.strip_suffix('.').unwrap_or(host);
    // One final dot is the root's; behind another one the name would keep a second spelling.
    (valid && !bare.is_empty() && !bare.ends_with('.')).then(|| bare.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_become_hosts() {
        let check = |authority: &str, expected: Option<&str>| {
            assert_eq!(host_of(authority).as_deref(), expected, "{authority}");
        };
        check("Shop.Example.com", Some("shop.example.com"));
        check("shop.example.com:8080", Some("shop.example.com"));
        check("shop.example.com.", Some("shop.example.com"));
        check("127.0.0.1:80", Some("127.0.0.1"));
        check("[::1]:80", Some("::1"));
        check("[::1]", Some("::1"));
        check("my_host", Some("my_host"));
        for bad in [
            "", ".", ":80", "a b", "a/b", "a@b", "a..", "..", "a..:80", "a:b", "a:80:90", "[::1", "[::1]x", "[shop]",
            "a\0", "ä",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn the_most_exact_name_wins() {
        let site = |name: &str| Arc::new(Site { name: name.into(), routes: Vec::new() });
        let mut hosts = Hosts::default();
        for name in ["_", "*.example.com", "shop.example.com"] {
            assert!(hosts.insert(name, &site(name)).is_none());
        }
        let check = |host: &str, expected: &str| {
            assert_eq!(&*hosts.find(host).expect("the default catches all").name, expected, "{host}");
        };
        check("shop.example.com", "shop.example.com");
        check("blog.example.com", "*.example.com");
        check("a.blog.example.com", "_");
        check("example.com", "_");
        assert!(hosts.named("example.com").is_none());
    }
}
