//! Everything about forwarding requests: addresses, health, timeouts.

use std::time::Duration;

use crate::{Health, Proxy, Strategy, UpstreamHttp, UpstreamUrl, section::Section, section::text_of, values};

/// Who listens at the other end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Upstream {
    /// A server of its own.
    Elsewhere,
    /// The app that miwid runs.
    App,
}

pub(super) fn proxy(section: &Section<'_>, upstream: Upstream) -> Proxy {
    let strategies =
        [Strategy::RoundRobin, Strategy::LeastConn, Strategy::IpHash, Strategy::RandomTwo, Strategy::LeastTime];
    Proxy {
        urls: urls(section),
        strategy: section.choice("strategy", &strategies).unwrap_or_default(),
        health: Health {
            path: section.text("health_check"),
            interval: section.duration("health_interval").unwrap_or(Duration::from_secs(10)),
            timeout: section.duration("health_timeout").unwrap_or(Duration::from_secs(5)),
            expect: section.integers("health_expect").unwrap_or_default(),
        },
        preserve_host: section.flag("preserve_host").unwrap_or(upstream == Upstream::App),
        upstream_http: section.choice("upstream_http", &[UpstreamHttp::Http1, UpstreamHttp::Http2]).unwrap_or_default(),
        connect_timeout: section.duration("connect_timeout").unwrap_or(Duration::from_secs(5)),
        retries: section.integer("retries").unwrap_or(1),
        sticky: section.text("sticky"),
        max_in_flight: section.integer("max_in_flight"),
        tls_ca: section.path("tls_ca"),
        tls_client_cert: section.path("tls_client_cert"),
    }
}

/// `url` and `urls`, which are never both right.
fn urls(section: &Section<'_>) -> Vec<UpstreamUrl> {
    let mut urls: Vec<UpstreamUrl> = section.text("url").iter().filter_map(|it| values::upstream(it).ok()).collect();
    urls.extend(section.list("urls", |it| values::upstream(&text_of(it)?).ok()).unwrap_or_default());
    for (i, url) in urls.iter().enumerate() {
        if section.has("urls") && !section.has("url") && urls[..i].contains(url) {
            section.error_at("urls", "an upstream is listed twice", Some("list every address once".into()));
        }
    }
    urls
}

/// Keys that say how requests are forwarded: out of place where nothing is.
pub(super) const KEYS: &[&str] = &[
    "strategy",
    "health_check",
    "health_interval",
    "health_timeout",
    "health_expect",
    "preserve_host",
    "upstream_http",
    "connect_timeout",
    "retries",
    "sticky",
    "max_in_flight",
    "tls_ca",
    "tls_client_cert",
];
