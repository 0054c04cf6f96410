//! Reads the tables that concern the whole server, and fills in their defaults.
//!
//! `ssl`, `compression`, `cache` and `security` are also read per site, by the same functions.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{model::*, section::Section, tree::Value, units::ByteSize};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn networks(s: &Section<'_>, key: &'static str) -> Vec<IpNet> {
    s.each(key, "an IP address or network", network).unwrap_or_default()
}

fn address(text: &str) -> Option<IpAddr> {
    text.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

pub(crate) fn server(s: &Section<'_>) -> Server {
    Server {
        bind: s
            .each("bind", "an IP address", address)
            .unwrap_or_else(|| ["0.0.0.0", "::"].iter().filter_map(|a| address(a)).collect()),
        http_port: s.number("http_port").unwrap_or(8080),
        https_port: s.number("https_port").unwrap_or(8443),
        enable_https: s.flag("enable_https"),
        http3: s.flag("http3").unwrap_or(true),
        redirect_https: s.flag("redirect_https").unwrap_or(false),
        workers: s.number("workers").filter(|n: &usize| *n > 0),
        max_connections: s.number("max_connections"),
        keepalive_timeout: s.duration("keepalive_timeout").unwrap_or(seconds(65)),
        request_timeout: s.duration("request_timeout").unwrap_or(seconds(30)),
        stream_idle_timeout: s.duration("stream_idle_timeout").unwrap_or(seconds(3600)),
        shutdown_timeout: s.duration("shutdown_timeout").unwrap_or(seconds(75)),
        state_dir: s.path("state_dir"),
        trusted_proxies: networks(s, "trusted_proxies"),
        proxy_protocol: s.flag("proxy_protocol").unwrap_or(false),
        h2c: s.flag("h2c").unwrap_or(true),
        server_header: s.flag("server_header").unwrap_or(true),
        request_id_header: s.flag("request_id_header").unwrap_or(false),
        user: s.text("user"),
        group: s.text("group"),
        io_backend: s
            .choice(
                "io_backend",
                &[("auto", IoBackend::Auto), ("epoll", IoBackend::Epoll), ("io_uring", IoBackend::IoUring)],
            )
            .unwrap_or_default(),
        limits: limits(&s.section("limits")),
    }
}

fn limits(s: &Section<'_>) -> Limits {
    Limits {
        max_request_size: s.size("max_request_size").unwrap_or(ByteSize::mib(10)),
        max_header_size: s.size("max_header_size").unwrap_or(ByteSize::kib(32)),
        max_uri_length: s.number("max_uri_length").unwrap_or(8192),
        max_headers: s.number("max_headers").unwrap_or(100),
    }
}

pub(crate) fn admin(s: &Section<'_>) -> Admin {
    let written = s.text("listen").unwrap_or_else(|| "127.0.0.1:9180".to_owned());
    let listen = written.parse().ok();
    if listen.is_none() && written != "off" {
        s.wrong(
            "listen",
            format!("\"{written}\" is not an address with a port"),
            Some("write \"127.0.0.1:9180\" or \"off\""),
        );
    }
    Admin { listen }
}

pub(crate) fn control(s: &Section<'_>) -> Control {
    let acl = s.entries("acl").into_iter().map(|(name, _, node)| (name.to_owned(), json(&node.value))).collect();
    Control { socket: s.path("socket"), group: s.text("group"), acl }
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(s) => s.as_str().into(),
        Value::Integer(n) => (*n).into(),
        Value::Float(n) => (*n).into(),
        Value::Boolean(b) => (*b).into(),
        Value::Array(items) => items.iter().map(|n| json(&n.value)).collect(),
        Value::Table(t) => serde_json::Value::Object(t.iter().map(|(k, n)| (k.clone(), json(&n.value))).collect()),
        Value::Datetime => serde_json::Value::Null,
    }
}

pub(crate) fn ssl(s: &Section<'_>) -> Ssl {
    let issuers = [
        ("auto", Issuer::Auto),
        ("cloudflare-origin", Issuer::CloudflareOrigin),
        ("acme", Issuer::Acme),
        ("local", Issuer::Local),
        ("file", Issuer::File),
    ];
    let ssl = Ssl {
        auto_cert: s.flag("auto_cert").unwrap_or(false),
        domains: s.texts("domains").unwrap_or_default(),
        issuer: s.choice("issuer", &issuers).unwrap_or_default(),
        cert: s.path("cert"),
        key: s.path("key"),
        min_version: s.text("min_version"),
        client_auth: s.text("client_auth"),
        client_ca: s.path("client_ca"),
        unknown_sni: s
            .choice("unknown_sni", &[("reject", UnknownSni::Reject), ("default", UnknownSni::Default)])
            .unwrap_or_default(),
        storage: s.path("storage"),
    };
    match (&ssl.cert, &ssl.key) {
        (Some(_), None) => s.wrong("cert", "cert is set without key", Some("add key = \"FILE\"")),
        (None, Some(_)) => s.wrong("key", "key is set without cert", Some("add cert = \"FILE\"")),
        _ => {}
    }
    ssl
}

pub(crate) fn cloudflare(s: &Section<'_>, files: &mut Vec<PathBuf>) -> Cloudflare {
    Cloudflare {
        api_token: s.secret("api_token", "api_token_file", files),
        zone_id: s.text("zone_id"),
        account_id: s.text("account_id"),
        api_base: s.text("api_base"),
        trust: s.flag("trust").unwrap_or(false),
        only: s.flag("only").unwrap_or(false),
        origin_pulls: s.flag("origin_pulls").unwrap_or(false),
        origin_ca_validity_days: s.number("origin_ca_validity_days"),
        origin_ca_roots: s.path("origin_ca_roots"),
    }
}

pub(crate) fn acme(s: &Section<'_>, files: &mut Vec<PathBuf>) -> Option<Acme> {
    let eab = s.section("eab");
    let (key_id, hmac_key) = (eab.text("key_id"), eab.secret("hmac_key", "hmac_key_file", files));
    if eab.present() && (key_id.is_none() || hmac_key.is_none()) {
        eab.faulty("eab needs key_id and hmac_key", "add both, as your certificate authority gave them");
    }
    let challenges = ["auto", "http-01", "tls-alpn-01", "dns-01"].map(|c| (c, c));
    let acme = Acme {
        directory: s.text("directory"),
        contact: s.texts("contact").unwrap_or_default(),
        challenge: s.choice("challenge", &challenges).map(str::to_owned),
        http_port_public: s.number("http_port_public"),
        profile: s.text("profile"),
        eab: key_id.zip(hmac_key).map(|(key_id, hmac_key)| Eab { key_id, hmac_key }),
        ca_file: s.path("ca_file"),
    };
    s.present().then_some(acme)
}

pub(crate) fn compression(s: &Section<'_>) -> Compression {
    let known = |text: &str| ["zstd", "br", "gzip"].contains(&text).then(|| text.to_owned());
    Compression {
        enabled: s.flag("enabled").unwrap_or(true),
        algorithms: s
            .each("algorithms", "one of zstd, br, gzip", known)
            .unwrap_or_else(|| ["zstd", "br", "gzip"].map(str::to_owned).into()),
        level: s.number("level"),
        min_size: s.size("min_size").unwrap_or(ByteSize(1024)),
        types: s.texts("types").unwrap_or_default(),
    }
}

pub(crate) fn cache(s: &Section<'_>) -> Cache {
    Cache {
        enabled: s.flag("enabled").unwrap_or(false),
        max_size: s.size("max_size").unwrap_or(ByteSize::mib(64)),
        ttl: s.duration("ttl"),
        ignore_cookies: s.texts("ignore_cookies").unwrap_or_default(),
        disk_path: s.path("disk_path"),
        disk_size: s.size("disk_size"),
        max_object_size: s.size("max_object_size"),
    }
}

pub(crate) fn security(s: &Section<'_>) -> Security {
    let mut allow = networks(s, "ip_whitelist");
    allow.extend(networks(s, "allow"));
    Security {
        enable_cors: s.flag("enable_cors").unwrap_or(false),
        cors_origins: s.texts("cors_origins").unwrap_or_default(),
        enable_csrf: s.flag("enable_csrf").unwrap_or(false),
        csrf_trusted_origins: s.texts("csrf_trusted_origins").unwrap_or_default(),
        csrf_exempt_paths: s.texts("csrf_exempt_paths").unwrap_or_default(),
        rate_limit: s.number("rate_limit"),
        rate_limit_exempt: networks(s, "rate_limit_exempt"),
        allow,
        deny: networks(s, "deny"),
        headers: s.texts_by_key("headers").into_iter().map(|(k, v)| (k.replace('_', "-"), v)).collect(),
        mode: s
            .choice("mode", &[("enforce", SecurityMode::Enforce), ("report", SecurityMode::Report)])
            .unwrap_or_default(),
    }
}

pub(crate) fn logging(s: &Section<'_>) -> Logging {
    Logging {
        level: s.text("level").unwrap_or_else(|| "info".to_owned()),
        format: log_format(s),
        path: s.path("path"),
        access_log: access_log(&s.section("access_log")),
        rotation: rotation(&s.section("rotation")),
    }
}

pub(crate) fn log_format(s: &Section<'_>) -> LogFormat {
    s.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]).unwrap_or_default()
}

fn access_log(s: &Section<'_>) -> AccessLog {
    let formats =
        [("common", AccessFormat::Common), ("combined", AccessFormat::Combined), ("json", AccessFormat::Json)];
    AccessLog {
        enabled: s.flag("enabled").unwrap_or(false),
        path: s
            .path("path")
            .unwrap_or_else(|| s.at.file.parent().map_or_else(PathBuf::new, PathBuf::from).join("logs/access.log")),
        format: s.choice("format", &formats).unwrap_or_default(),
        buffer_size: s.number("buffer_size").unwrap_or(100),
        on_full: s.choice("on_full", &[("drop", OnFull::Drop), ("block", OnFull::Block)]).unwrap_or_default(),
        fields: s.texts("fields").unwrap_or_default(),
    }
}

fn rotation(s: &Section<'_>) -> Rotation {
    let days = s.number("max_age_days").map(|n: u32| seconds(u64::from(n) * 86_400));
    Rotation {
        enabled: s.flag("enabled").unwrap_or(true),
        max_size: s.number("max_size_mb").map_or(ByteSize::mib(100), |n: u32| ByteSize::mib(n.into())),
        max_backups: s.number("max_backups").unwrap_or(10),
        compress: s.flag("compress").unwrap_or(true),
        max_age: days,
        max_total: s.number("max_total_mb").map(|n: u32| ByteSize::mib(n.into())),
        naming: s
            .choice("naming", &[("numbered", BackupNaming::Numbered), ("timed", BackupNaming::Timed)])
            .unwrap_or_default(),
    }
}

pub(crate) fn tracing(s: &Section<'_>) -> Tracing {
    Tracing { otlp_endpoint: s.text("otlp_endpoint"), sample_ratio: s.float("sample_ratio") }
}

pub(crate) fn metrics(s: &Section<'_>) -> Metrics {
    Metrics { enabled: s.flag("enabled").unwrap_or(true), per_site: s.flag("per_site").unwrap_or(false) }
}
