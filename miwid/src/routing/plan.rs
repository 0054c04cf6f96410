//! What will happen to a request: pure, so that `miwictl explain` can say it without sending one.

use std::{borrow::Cow, sync::Arc};

use super::{Hosts, Route, Site, normalized};

pub struct Plan<'a> {
    pub site: &'a Arc<Site>,
    pub route: &'a Route,
    /// What the target is asked for: the path as sent, or what is left of it below a stripped prefix.
    pub path: Cow<'a, str>,
    /// The site's path, normalized: what the route was found by.
    pub clean: Cow<'a, str>,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// No site answers this host.
    NoSite,
    /// The path cannot be routed.
    BadPath,
}

pub fn plan<'a>(hosts: &'a Hosts, host: &str, path: &'a str) -> Result<Plan<'a>, NoPlan> {
    let site = hosts.find(host).ok_or(NoPlan::NoSite)?;
    let clean = normalized(path).ok_or(NoPlan::BadPath)?;
    let route = site.route(&clean).ok_or(NoPlan::BadPath)?;
    let path = if route.strip_prefix { below(&route.prefix, path, &clean) } else { Cow::Borrowed(path) };
    Ok(Plan { site, route, path, clean })
}

/// The path below `prefix`, as sent when the prefix was written plainly, else from the normalized path.
fn below<'a>(prefix: &str, path: &'a str, clean: &str) -> Cow<'a, str> {
    let prefix = prefix.trim_end_matches('/');
    match path.strip_prefix(prefix) {
        Some("") => Cow::Borrowed("/"),
        Some(rest) if rest.starts_with('/') && normalized(rest).is_some() => Cow::Borrowed(rest),
        _ => {
            use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
            // All that RFC 3986, 3.3 keeps out of a path.
            const DELIMITERS: &AsciiSet =
                &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?');
            const UNSAFE: &AsciiSet =
                &DELIMITERS.add(b'[').add(b'\\').add(b']').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');
            let rest = clean.strip_prefix(prefix).unwrap_or(clean);
            Cow::Owned(utf8_percent_encode(if rest.is_empty() { "/" } else { rest }, UNSAFE).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::routing::Target;

    fn hosts() -> Hosts {
        let route = |prefix: &str, strip_prefix| Route {
            prefix: prefix.into(),
            strip_prefix,
            target: Target::Redirect { to: "/".into(), status: StatusCode::FOUND },
            compression: None,
            extra: None,
            guard: None,
        };
        let routes = vec![route("/static/", true), route("/api", true), route("/", false)];
        let mut hosts = Hosts::default();
        hosts.insert("a.example", &Arc::new(Site { name: "a".into(), routes }));
        hosts
    }

    #[test]
    fn requests_are_planned() {
        let hosts = hosts();
        let check = |path: &str, prefix: &str, rest: &str| {
            let plan = plan(&hosts, "a.example", path).unwrap_or_else(|why| panic!("{path}: {why:?}"));
            assert_eq!((&*plan.route.prefix, &*plan.path), (prefix, rest), "{path}");
        };
        check("/", "/", "/");
        check("/index.html", "/", "/index.html");
        check("/static/a%20b.css", "/static/", "/a%20b.css");
        check("/%73tatic/a.css", "/static/", "/a.css");
        check("/api", "/api", "/");
        check("/api/v1", "/api", "/v1");
        check("/static/../x", "/", "/static/../x");
        check("/x/../api/y", "/api", "/y");
        check("/x/../api/%60%5b%5C%5d%5e%7b%7c%7d%25", "/api", "/%60%5B%5C%5D%5E%7B%7C%7D%25");
    }

    #[test]
    fn what_cannot_be_planned_says_why() {
        let hosts = hosts();
        assert_eq!(plan(&hosts, "b.example", "/").err(), Some(NoPlan::NoSite));
        assert_eq!(plan(&hosts, "a.example", "/../etc").err(), Some(NoPlan::BadPath));
    }
}
