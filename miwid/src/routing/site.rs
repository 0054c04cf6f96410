//! A virtual host as it runs: its routes, longest prefix first, each with a target that is ready to answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::{encoding::Rules, exchange::ExtraHeaders, files::Root, policy::Guard, proxy::Forwarder};

pub struct Site {
    pub name: Arc<str>,
    pub routes: Vec<Route>,
}

pub struct Route {
    pub prefix: Box<str>,
    pub strip_prefix: bool,
    pub target: Target,
    /// `None`: answers go as they are.
    pub compression: Option<Arc<Rules>>,
    /// `None`: nothing is added to answers.
    pub extra: Option<Arc<ExtraHeaders>>,
    /// `None`: everybody may ask, as often as they like.
    pub guard: Option<Arc<Guard>>,
}

pub enum Target {
    Files(Root),
    Proxy(Forwarder),
    Redirect { to: Box<str>, status: StatusCode },
    Respond { status: StatusCode, body: Bytes, content_type: HeaderValue },
}

impl Site {
    /// `path` is normalized.
    pub fn route(&self, path: &str) -> Option<&Route> {
        self.routes.iter().find(|it| covers(&it.prefix, path))
    }
}

/// `/api` covers `/api` and `/api/x`; `/api/` covers what is below it.
fn covers(prefix: &str, path: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_a_segment() {
        for (prefix, path, expected) in [
            ("/", "/", true),
            ("/", "/anything", true),
            ("/api", "/api", true),
            ("/api", "/api/x", true),
            ("/api", "/apix", false),
            ("/api/", "/api/x", true),
            ("/api/", "/api", false),
            ("/api", "/other", false),
        ] {
            assert_eq!(covers(prefix, path), expected, "{prefix} {path}");
        }
    }
}
