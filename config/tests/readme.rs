//! Every configuration block of the original README loads unchanged and means what it says.

#![allow(clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use config::{
    AccessFormat, AppType, AutoRestart, ByteSize, Capabilities, Config, Strategy, Target, UpstreamUrl, load_text,
};

fn understood(text: &str) -> Config {
    load_text(Path::new("/etc/miwid/config.toml"), text, &[], &Capabilities::default()).expect("it loads").config
}

const BASIC: &str = include_str!("readme/basic.toml");

#[test]
fn the_basic_configuration_loads() {
    let config = understood(BASIC);
    assert_eq!((config.server.http_port, config.server.https_port), (8080, 8443));
    assert_eq!((config.server.enable_https, config.server.workers), (Some(true), Some(4)));
    assert!(config.ssl.auto_cert);
    assert_eq!(config.ssl.domains, ["example.com", "*.example.com"]);
    assert_eq!(config.cloudflare.api_token.as_ref().unwrap().expose(), "YOUR_CLOUDFLARE_API_TOKEN");
    assert_eq!(config.cloudflare.zone_id.as_deref(), Some("YOUR_ZONE_ID"));
    let log = &config.logging.access_log;
    assert!(log.enabled);
    assert_eq!(log.path, Path::new("/etc/miwid/logs/access.log"));
    assert_eq!((log.format, log.buffer_size), (AccessFormat::Json, 100));
    let rotation = &config.logging.rotation;
    assert!(rotation.enabled && rotation.compress);
    assert_eq!((rotation.max_size, rotation.max_backups), (ByteSize::mib(100), 10));

    let backend = &config.backends["app.example.com"];
    assert_eq!((backend.name.as_str(), backend.app_type), ("app.example.com", AppType::Nodejs));
    let Target::App(proxy) = &backend.target else { panic!("{:?}", backend.target) };
    assert_eq!(proxy.urls, [UpstreamUrl::Http { host: "localhost".into(), port: 3000 }]);
    assert_eq!(proxy.health.path.as_deref(), Some("/health"));
    assert!(proxy.preserve_host);
    let process = backend.process.as_ref().unwrap();
    assert_eq!(process.command.as_deref(), Some("node"));
    assert_eq!(process.args, ["server.js"]);
    assert_eq!(process.working_dir, Path::new("/app"));
    assert_eq!(process.auto_restart, AutoRestart::Always);
    assert_eq!(process.env["NODE_ENV"].expose(), "production");
    assert_eq!(process.env["PORT"].expose(), "3000");
}

const TUNING: &str = include_str!("readme/tuning.toml");

#[test]
fn the_performance_tuning_loads() {
    let config = understood(TUNING);
    assert_eq!((config.server.workers, config.server.max_connections), (Some(8), Some(100_000)));
    assert_eq!(config.server.keepalive_timeout, Duration::from_secs(65));
    assert_eq!(config.server.request_timeout, Duration::from_secs(30));
    assert_eq!(config.server.limits.max_request_size, ByteSize::mib(10));
    assert_eq!(config.server.limits.max_header_size, ByteSize::kib(8));
    assert_eq!(config.server.limits.max_uri_length, 8192);
    assert!(config.cache.enabled);
    assert_eq!((config.cache.max_size, config.cache.ttl), (ByteSize::mib(1024), Some(Duration::from_secs(3600))));
}

const SECURITY: &str = include_str!("readme/security.toml");

#[test]
fn the_security_configuration_loads() {
    let security = understood(SECURITY).security;
    assert!(security.enable_cors && security.enable_csrf);
    assert_eq!(security.cors_origins, ["https://example.com"]);
    assert_eq!(security.rate_limit, Some(1000));
    assert_eq!(security.allow, ["192.168.1.0/24".parse().unwrap()]);
    let headers: Vec<_> = security.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        headers,
        [
            ("strict-transport-security", "max-age=31536000"),
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
        ]
    );
}

const BALANCING: &str = include_str!("readme/balancing.toml");

#[test]
fn the_load_balancing_loads() {
    let config = understood(BALANCING);
    let backend = &config.backends["api.example.com"];
    assert_eq!((backend.app_type, backend.process.is_none()), (AppType::Proxy, true));
    let Target::Proxy(proxy) = &backend.target else { panic!("{:?}", backend.target) };
    let hosts: Vec<_> = ["api1", "api2", "api3"].map(|it| UpstreamUrl::Http { host: it.into(), port: 8000 }).into();
    assert_eq!(proxy.urls, hosts);
    assert_eq!((proxy.strategy, proxy.preserve_host), (Strategy::RoundRobin, false));
    assert_eq!(proxy.health.interval, Duration::from_secs(10));
}

#[test]
fn the_other_strategies_of_the_comment_load() {
    for (name, strategy) in [("least_conn", Strategy::LeastConn), ("ip_hash", Strategy::IpHash)] {
        let config = understood(&BALANCING.replace("\"round_robin\"", &format!("{name:?}")));
        let Target::Proxy(proxy) = &config.backends["api.example.com"].target else { panic!("not a proxy") };
        assert_eq!(proxy.strategy, strategy);
    }
}

#[test]
fn all_blocks_together_are_one_configuration() {
    let config = understood(&format!("{BASIC}{BALANCING}{SECURITY}"));
    assert_eq!(config.backends.len(), 2);
}
