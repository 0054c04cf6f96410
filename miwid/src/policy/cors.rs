//! Which pages of other origins may read answers (CORS, of the Fetch standard). Pure.

use http::{HeaderMap, HeaderValue, Method, header};

use crate::exchange::Sharing;

/// How long a browser may remember what it was told before a request.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

#[derive(Debug)]
pub struct Cors {
    /// `None`: all.
    origins: Option<Vec<Box<[u8]>>>,
    credentials: bool,
}

impl Cors {
    pub fn new(security: &config::Security) -> Option<Self> {
        let listed = || security.cors_origins.iter().map(|it| it.to_ascii_lowercase().into_bytes().into()).collect();
        security.enable_cors.then(|| {
            let is_open = security.cors_origins.iter().any(|it| it == "*");
            // The configuration is refused when it wants both; should they meet all the same, no cookies come along.
            Self { origins: (!is_open).then(listed), credentials: security.cors_credentials && !is_open }
        })
    }

    /// What the answer to this request has to say, whatever it is.
    pub fn sharing(&self, headers: &HeaderMap) -> Sharing {
        let asks = headers.get(header::ORIGIN);
        let with = match &self.origins {
            None => asks.map(|_| HeaderValue::from_static("*")),
            Some(origins) => {
                let is_listed = |it: &&HeaderValue| origins.contains(&it.as_bytes().to_ascii_lowercase().into());
                asks.filter(is_listed).cloned()
            }
        };
        Sharing { with, credentials: self.credentials, varies: self.origins.is_some() }
    }

    /// What is said to a browser that asks before it sends a request; `None`: this is the request itself. Nothing is said of
    /// methods and fields beyond that they may come: the app judges those.
    pub fn preflight(method: &Method, headers: &HeaderMap, sharing: &Sharing) -> Option<HeaderMap> {
        let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
            return None;
        }
        let mut said = HeaderMap::new();
        let vary = "access-control-request-method, access-control-request-headers";
        said.insert(header::VARY, HeaderValue::from_static(vary));
        if sharing.with.is_some() {
            said.insert(header::ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
            said.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            if let Some(fields) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                said.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields.clone());
            }
        }
        Some(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], cors_credentials: bool) -> Cors {
        let security = config::Security {
            enable_cors: true,
            cors_origins: origins.iter().map(|it| (*it).to_owned()).collect(),
            cors_credentials,
            ..config::Security::default()
        };
        Cors::new(&security).expect("it is on")
    }

    fn fields(of: &[(&'static str, &str)]) -> HeaderMap {
        let parsed = of.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        parsed.collect()
    }

    #[test]
    fn answers_are_shared_with_the_origins_that_are_named() {
        let named = &["https://example.com", "https://App.example.com:8443"][..];
        for (origins, credentials, origin, expected) in [
            (named, false, "https://example.com", "https://example.com | vary"),
            (named, true, "https://example.com", "https://example.com credentials | vary"),
            (named, false, "https://app.example.com:8443", "https://app.example.com:8443 | vary"),
            (named, false, "http://example.com", " | vary"),
            (named, false, "https://example.com:444", " | vary"),
            (named, false, "https://example.com.evil.example", " | vary"),
            (named, true, "https://evil.example", " | vary"),
            (named, true, "null", " | vary"),
            (named, false, "", " | vary"),
            (&["*"], false, "https://evil.example", "* |"),
            (&["*", "https://example.com"], false, "https://example.com", "* |"),
            (&["*"], true, "https://example.com", "* |"),
            (&["*"], false, "", " |"),
        ] {
            let asked = if origin.is_empty() { fields(&[]) } else { fields(&[("origin", origin)]) };
            let mut answer = HeaderMap::new();
            cors(origins, credentials).sharing(&asked).apply(&mut answer);
            let text = |name: &str| answer.get(name).map_or("", |it| it.to_str().expect("text"));
            let told = format!(
                "{}{} |{}",
                text("access-control-allow-origin"),
                if text("access-control-allow-credentials") == "true" { " credentials" } else { "" },
                if text("vary") == "origin" { " vary" } else { "" }
            );
            assert_eq!(told, expected, "{origins:?} {origin}");
        }
    }

    #[test]
    fn a_preflight_is_an_options_with_an_origin_and_a_method() {
        let cors = cors(&["https://example.com"], false);
        let told = |method: &Method, asked: &[(&'static str, &str)]| {
            let headers = fields(asked);
            Cors::preflight(method, &headers, &cors.sharing(&headers))
        };
        let (ours, theirs) = (("origin", "https://example.com"), ("origin", "https://evil.example"));
        let (method, names) =
            (("access-control-request-method", "PUT"), ("access-control-request-headers", "x-a, content-type"));
        let said = told(&Method::OPTIONS, &[ours, method, names]).expect("it is one");
        assert_eq!(said["access-control-allow-methods"], "PUT");
        assert_eq!(said["access-control-allow-headers"], "x-a, content-type");
        assert_eq!(said["access-control-max-age"], "600");
        let said = told(&Method::OPTIONS, &[theirs, method, names]).expect("it is one");
        assert_eq!(said.keys().collect::<Vec<_>>(), ["vary"]);
        for (verb, asked) in
            [(Method::OPTIONS, &[ours][..]), (Method::OPTIONS, &[method]), (Method::PUT, &[ours, method])]
        {
            assert!(told(&verb, asked).is_none(), "{verb} {asked:?}");
        }
    }
}
