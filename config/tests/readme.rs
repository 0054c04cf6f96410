//! The configuration blocks of the README load as written and mean what they say.
#![allow(clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use config::*;

fn good(text: &str) -> Config {
    match load_text(Path::new("/etc/miwid/config.toml"), text, &[], &Capabilities::default()) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{problems:#?}"),
    }
}

#[test]
fn the_basic_block_loads() {
    let config = good(include_str!("readme/basic.toml"));
    assert_eq!((config.server.http_port, config.server.https_port), (8080, 8443));
    assert_eq!((config.server.enable_https, config.server.workers), (Some(true), Some(4)));
    assert!(config.ssl.auto_cert);
    assert_eq!(config.cloudflare.api_token.as_ref().unwrap().expose(), "YOUR_CLOUDFLARE_API_TOKEN");
    assert_eq!(config.logging.access_log.path, Path::new("/etc/miwid/logs/access.log"));
    assert_eq!(config.logging.rotation.max_size, ByteSize::mib(100));
    let backend = &config.backends["app.example.com"];
    assert_eq!(backend.app_type, AppType::Nodejs);
    let Target::App(proxy) = &backend.target else { panic!("{:?}", backend.target) };
    assert_eq!(proxy.urls, [UpstreamUrl::Http { host: "localhost".into(), port: 3000 }]);
    assert_eq!(proxy.health.path.as_deref(), Some("/health"));
    let process = backend.process.as_ref().unwrap();
    assert_eq!((process.command.as_deref(), process.auto_restart), (Some("node"), AutoRestart::Always));
    assert_eq!(process.env["PORT"].expose(), "3000");
}

#[test]
fn the_performance_block_loads() {
    let config = good(include_str!("readme/performance.toml"));
    assert_eq!(config.server.max_connections, Some(100_000));
    assert_eq!(config.server.keepalive_timeout, Duration::from_secs(65));
    assert_eq!(config.server.limits.max_header_size, ByteSize::kib(8));
    assert_eq!((config.cache.enabled, config.cache.max_size), (true, ByteSize(1 << 30)));
    assert_eq!(config.cache.ttl, Some(Duration::from_secs(3600)));
}

#[test]
fn the_security_block_loads() {
    let security = good(include_str!("readme/security.toml")).security;
    assert_eq!((security.enable_cors, security.enable_csrf, security.rate_limit), (true, true, Some(1000)));
    assert_eq!(security.allow, ["192.168.1.0/24".parse().unwrap()]);
    assert_eq!(security.headers["x-frame-options"], "DENY");
}

#[test]
fn the_balancing_block_loads() {
    let config = good(include_str!("readme/balancing.toml"));
    let backend = &config.backends["api.example.com"];
    let Target::Proxy(proxy) = &backend.target else { panic!("{:?}", backend.target) };
    assert_eq!((proxy.urls.len(), proxy.strategy), (3, Strategy::RoundRobin));
    assert_eq!(proxy.health.interval, Duration::from_secs(10));
}

#[test]
fn the_built_in_default_loads_with_a_managed_demo_app() {
    let config = good(&builtin(Path::new("/usr/bin/miwid")));
    let backend = &config.backends["app.localhost"];
    assert_eq!(backend.name, "demo");
    assert!(matches!(&backend.target, Target::App(proxy) if proxy.urls.is_empty()));
    assert_eq!(backend.process.as_ref().unwrap().start_timeout, Duration::from_secs(30));
}
