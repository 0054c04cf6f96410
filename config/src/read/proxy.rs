//! Everything about forwarding requests: addresses, health, timeouts.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use crate::{
    Health, PemFile, Proxy, ProxyProtocol, Strategy, UpstreamHttp, UpstreamUrl,
    section::{Section, text_of},
    values,
};

/// What the files of certificates must contain, and what that is called.
const CERTIFICATE: (&str, &str) = ("-----BEGIN CERTIFICATE-----", "certificate");
const KEY: (&str, &str) = ("PRIVATE KEY-----", "private key");

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
        proxy_protocol: section.choice("proxy_protocol", &[ProxyProtocol::V1, ProxyProtocol::V2]),
        tls_ca: pem_file(section, "tls_ca", &[CERTIFICATE]),
        tls_client_cert: pem_file(section, "tls_client_cert", &[CERTIFICATE, KEY]),
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

/// Whether its certificates are good is for whoever uses them; that they are there can be said here, with the line.
fn pem_file(section: &Section<'_>, key: &str, parts: &[(&str, &str)]) -> Option<PemFile> {
    let path = section.path(key)?;
    let content = match std::fs::read(&path) {
        Ok(content) => content,
        Err(error) => {
            let hint = "give the path of a PEM file that miwid may read";
            section.error_at(key, format!("cannot read {}: {error}", path.display()), Some(hint.into()));
            return None;
        }
    };
    let text = String::from_utf8_lossy(&content);
    if let Some((_, what)) = parts.iter().find(|(mark, _)| !text.contains(mark)) {
        let hint = match parts.len() {
            1 => "the file holds one certificate or more, in PEM",
            _ => "the file holds the certificate, those between it and its authority, and the key, in PEM",
        };
        section.error_at(key, format!("there is no {what} in {}", path.display()), Some(hint.into()));
        return None;
    }
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    Some(PemFile { path, digest: hasher.finish() })
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
    "proxy_protocol",
    "tls_ca",
    "tls_client_cert",
];
