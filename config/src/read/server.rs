//! `[server]`, `[admin]`, `[control]`, `[tracing]`, `[metrics]`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::{
    Account, Admin, ByteSize, Control, Grant, IoBackend, Limits, Metrics, Role, Server, Tracing, UnderscoreHeaders,
    section::Section, values,
};

pub(super) fn server(section: &Section<'_>) -> Server {
    let seconds = |key, default| section.duration(key).unwrap_or(Duration::from_secs(default));
    let server = Server {
        bind: section
            .addresses("bind")
            .unwrap_or_else(|| vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]),
        http_port: section.integer("http_port").unwrap_or(8080),
        https_port: section.integer("https_port").unwrap_or(8443),
        enable_https: section.flag("enable_https"),
        http3: section.flag("http3").unwrap_or(true),
        redirect_https: section.flag("redirect_https").unwrap_or(false),
        workers: section.integer("workers").filter(|it| *it > 0),
        max_connections: section.integer("max_connections"),
        keepalive_timeout: seconds("keepalive_timeout", 65),
        request_timeout: seconds("request_timeout", 30),
        stream_idle_timeout: seconds("stream_idle_timeout", 3600),
        shutdown_timeout: seconds("shutdown_timeout", 75),
        state_dir: section.path("state_dir"),
        trusted_proxies: section.nets("trusted_proxies").unwrap_or_default(),
        proxy_protocol: section.flag("proxy_protocol").unwrap_or(false),
        h2c: section.flag("h2c").unwrap_or(true),
        server_header: section.flag("server_header").unwrap_or(true),
        request_id_header: section.flag("request_id_header").unwrap_or(false),
        user: section.text("user"),
        group: section.text("group"),
        io_backend: section
            .choice("io_backend", &[IoBackend::Auto, IoBackend::Epoll, IoBackend::IoUring])
            .unwrap_or_default(),
        limits: limits(&section.section("limits")),
    };
    judge(section, &server);
    server
}

fn judge(section: &Section<'_>, server: &Server) {
    if section.list("bind", |_| Some(())).is_some_and(|it| it.is_empty()) {
        section.error_at(
            "bind",
            "there is no address to listen on",
            Some("leave the key out for every address".into()),
        );
    }
    duplicates(section, &server.bind);
    if server.http_port != 0 && server.http_port == server.https_port {
        let key = if section.has("https_port") { "https_port" } else { "http_port" };
        let message = format!("port {} cannot serve both HTTP and HTTPS", server.http_port);
        section.error_at(key, message, Some("choose two ports, or turn one off with 0".into()));
    }
    if server.enable_https == Some(true) && server.https_port == 0 {
        section.error_at("enable_https", "HTTPS has no port", Some("give `https_port`, for example 8443".into()));
    }
    if server.redirect_https && server.enable_https == Some(false) {
        section.error_at("redirect_https", "HTTPS is turned off, so nothing can be redirected to it", None);
    }
    if server.proxy_protocol && server.trusted_proxies.is_empty() {
        let hint = "name the load balancers in `trusted_proxies`: only they may say who the client is";
        section.error_at("proxy_protocol", "nobody is trusted to send a PROXY protocol header", Some(hint.into()));
    }
    if server.group.is_some() && server.user.is_none() {
        section.error_at("group", "`group` goes with `user`", Some("give `user` too".into()));
    }
}

fn duplicates(section: &Section<'_>, bind: &[IpAddr]) {
    for (i, address) in bind.iter().enumerate() {
        if bind[..i].contains(address) {
            section.error_at("bind", format!("{address} is listed twice"), None);
        }
    }
}

fn limits(section: &Section<'_>) -> Limits {
    Limits {
        max_request_size: section.size("max_request_size").unwrap_or(ByteSize::mib(10)),
        max_header_size: section.size("max_header_size").unwrap_or(ByteSize::kib(32)),
        max_uri_length: section.integer("max_uri_length").unwrap_or(8192),
        max_headers: section.integer("max_headers").unwrap_or(100),
        underscore_headers: section
            .choice(
                "underscore_headers",
                &[UnderscoreHeaders::Drop, UnderscoreHeaders::Reject, UnderscoreHeaders::Keep],
            )
            .unwrap_or_default(),
    }
}

pub(super) fn admin(section: &Section<'_>) -> Admin {
    let listen = match section.text("listen").as_deref() {
        Some("off") => None,
        Some(text) => values::socket(text),
        None => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9180))),
    };
    Admin { listen }
}

pub(super) fn control(section: &Section<'_>) -> Control {
    let acl = section.section("acl");
    Control { socket: section.path("socket"), group: section.text("group"), acl: acl.present().then(|| grants(&acl)) }
}

fn grants(section: &Section<'_>) -> BTreeMap<Account, Grant> {
    let mut grants = BTreeMap::new();
    for (name, _) in section.keys() {
        let Some(account) = Account::parse(name) else {
            let hint = "write `user:NAME` or `group:NAME`, with a name or a number";
            section.error_at_key(name, format!("{name:?} is no user or group"), Some(hint.into()));
            continue;
        };
        let Some(grant) = grant(section, name) else { continue };
        if grants.insert(account, grant).is_some() {
            let hint = "one entry for each account; a name alone is a user's";
            section.error_at_key(name, format!("{name:?} is listed twice"), Some(hint.into()));
        }
    }
    grants
}

fn grant(section: &Section<'_>, name: &str) -> Option<Grant> {
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    let table = section.section(name);
    if !table.present() {
        let origin = section.origin_of(name);
        return section.choice(name, &roles).map(|role| Grant { role, apps: None, origin });
    }
    if !table.has("role") {
        table.error("`role` is missing", Some("give viewer, operator or admin as `role`".into()));
    }
    let grant = Grant { role: table.choice("role", &roles)?, apps: table.texts("apps"), origin: table.origin() };
    if grant.role == Role::Admin && grant.apps.is_some() {
        table.error_at(
            "apps",
            "an admin may do everything, with all apps",
            Some("take `apps` out, or make it an operator".into()),
        );
    }
    Some(grant)
}

pub(super) fn tracing(section: &Section<'_>) -> Tracing {
    Tracing { otlp_endpoint: section.text("otlp_endpoint"), sample_ratio: section.number("sample_ratio") }
}

pub(super) fn metrics(section: &Section<'_>) -> Metrics {
    Metrics { enabled: section.flag("enabled").unwrap_or(true), per_site: section.flag("per_site").unwrap_or(false) }
}
