//! Whether a request that changes something comes from a page of another site. Pure.
//!
//! Browsers say so themselves (Fetch Metadata), and older ones at least name the origin of the page; who says neither is no
//! browser, and sends nobody's cookies. So no tokens are needed, which a server in front of an app could not put into its
//! forms.

use http::{HeaderMap, HeaderName, Method, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[derive(Debug)]
pub struct Csrf {
    trusted: Vec<Box<str>>,
    exempt: Vec<Box<str>>,
}

impl Csrf {
    pub fn new(security: &config::Security) -> Option<Self> {
        security.enable_csrf.then(|| Self {
            trusted: security.csrf_trusted_origins.iter().map(|it| it.to_ascii_lowercase().into()).collect(),
            exempt: security.csrf_exempt_paths.iter().map(|it| it.as_str().into()).collect(),
        })
    }

    /// `authority` as in the Host header; `path` as routes see it.
    pub fn admits(&self, method: &Method, headers: &HeaderMap, authority: &str, path: &str) -> bool {
        // CONNECT opens a WebSocket over HTTP/2, which over HTTP/1.1 is a GET.
        if method.is_safe() || method == Method::CONNECT || self.exempt.iter().any(|it| covers(it, path)) {
            return true;
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) => None,
            (Some(origin), None) => match origin.to_str() {
                Ok(origin) => Some(origin.to_ascii_lowercase()),
                Err(_) => return false,
            },
            (Some(_), Some(_)) => return false,
        };
        if origin.as_ref().is_some_and(|origin| self.trusted.iter().any(|it| **it == *origin || &**it == "*")) {
            return true;
        }
        if headers.contains_key(&SEC_FETCH_SITE) {
            // `none` is the user: a bookmark, a typed address.
            return headers.get_all(&SEC_FETCH_SITE).iter().all(|it| it == "same-origin" || it == "none");
        }
        origin.is_none_or(|it| is_same_host(&it, authority))
    }
}

/// Whether an origin names this host. Its scheme does not count: another server may have ended TLS before us.
fn is_same_host(origin: &str, authority: &str) -> bool {
    let authority = authority.to_ascii_lowercase();
    let (host, port) = match origin.split_once("://") {
        Some(("https", host)) => (host, ":443"),
        Some(("http", host)) => (host, ":80"),
        // `null`, and what no browser sends.
        _ => return false,
    };
    let bare = |it: &str| it.strip_suffix(port).unwrap_or(it).to_owned();
    bare(host) == bare(&authority)
}

/// As prefixes of routes do: `/hooks` covers `/hooks/x` and not `/hooksx`.
fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|it| prefix.ends_with('/') || it.is_empty() || it.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &Method, path: &str, fields: &[(&'static str, &str)], expected: bool) {
        let security = config::Security {
            enable_csrf: true,
            csrf_trusted_origins: vec!["https://Partner.example".into()],
            csrf_exempt_paths: vec!["/hooks".into()],
            ..config::Security::default()
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        let csrf = Csrf::new(&security).expect("it is on");
        assert_eq!(csrf.admits(method, &headers, "shop.example:8443", path), expected, "{method} {path} {fields:?}");
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let fetch = "sec-fetch-site";
        for (fields, expected) in [
            (&[][..], true),
            (&[(fetch, "same-origin")], true),
            (&[(fetch, "none")], true),
            (&[(fetch, "same-site")], false),
            (&[(fetch, "cross-site")], false),
            (&[(fetch, "")], false),
            (&[(fetch, "same-origin"), (fetch, "cross-site")], false),
            // The browser's own word counts for more than the origin.
            (&[(fetch, "same-origin"), ("origin", "https://evil.example")], true),
            (&[(fetch, "cross-site"), ("origin", "https://shop.example:8443")], false),
            (&[("origin", "https://shop.example:8443")], true),
            (&[("origin", "http://SHOP.example:8443")], true),
            (&[("origin", "https://shop.example")], false),
            (&[("origin", "https://shop.example:8443.evil.example")], false),
            (&[("origin", "https://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "")], false),
            (&[("origin", "file://")], false),
            (&[("origin", "https://shop.example:8443"), ("origin", "https://shop.example:8443")], false),
            (&[("origin", "https://partner.example")], true),
            (&[(fetch, "cross-site"), ("origin", "https://partner.example")], true),
            (&[(fetch, "cross-site"), ("origin", "https://partner.example.evil.example")], false),
        ] {
            check(&Method::POST, "/", fields, expected);
        }
    }

    #[test]
    fn only_what_changes_something_is_looked_at_and_some_paths_are_not() {
        let evil = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")];
        for (method, path, expected) in [
            (Method::GET, "/", true),
            (Method::HEAD, "/", true),
            (Method::OPTIONS, "/", true),
            (Method::CONNECT, "/", true),
            (Method::POST, "/", false),
            (Method::PUT, "/", false),
            (Method::PATCH, "/", false),
            (Method::DELETE, "/", false),
            (Method::from_bytes(b"BREW").expect("a token"), "/", false),
            (Method::POST, "/hooks", true),
            (Method::POST, "/hooks/pay", true),
            (Method::POST, "/hooksx", false),
            (Method::POST, "/a/hooks", false),
        ] {
            check(&method, path, &evil, expected);
        }
    }

    #[test]
    fn default_ports_need_not_be_named() {
        for (origin, authority, expected) in [
            ("https://a.example", "a.example", true),
            ("https://a.example", "a.example:443", true),
            ("https://a.example:443", "a.example", true),
            ("http://a.example", "a.example:80", true),
            ("http://a.example", "a.example:443", false),
            ("https://a.example", "a.example:80", false),
            ("https://[::1]:8443", "[::1]:8443", true),
            ("https://a.example", "b.example", false),
        ] {
            assert_eq!(is_same_host(origin, authority), expected, "{origin} {authority}");
        }
    }
}
