//! Reads `[backends.HOST]` and its routes.
//!
//! What a backend serves follows from its keys (`root`, `url`, `process`, ...); `app_type` only has to agree.

use std::{path::PathBuf, time::Duration};

use crate::{
    globals,
    model::*,
    process::{given, process},
    section::Section,
    tree::Value,
};

pub(crate) fn backend(s: &Section<'_>, host: &str, files: &mut Vec<PathBuf>) -> Backend {
    let section = s.section("process");
    let written = app_type(s);
    let managed = section.present() || ["python", "nodejs", "tomcat", "jvm"].into_iter().any(|key| given(s.node(key)));
    let has_url = given(s.node("url")) || given(s.node("urls"));
    let inferred = written.unwrap_or(if has_url {
        AppType::Proxy
    } else if given(s.node("root")) {
        AppType::Static
    } else {
        AppType::Command
    });
    let process = process(&section, s, inferred, files);
    let mut routes: Vec<_> =
        s.entries("routes").into_iter().map(|(prefix, path, node)| route(&s.child(path, node), prefix)).collect();
    routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
    let target = target(s, managed).unwrap_or_else(|| {
        if routes.is_empty() {
            s.faulty("the backend has nothing to serve", "add url, urls, root, redirect, respond, routes or a process");
        }
        Target::Respond { status: 404, body: String::new(), content_type: "text/plain".to_owned() }
    });
    if inferred == AppType::Static && !given(s.node("root")) {
        s.wrong("app_type", "a static site needs root", Some("add root = \"DIRECTORY\""));
    }
    Backend {
        host: host.to_ascii_lowercase(),
        name: s.text("name").unwrap_or_else(|| host.to_ascii_lowercase()),
        aliases: s.texts("aliases").unwrap_or_default().iter().map(|a| a.to_ascii_lowercase()).collect(),
        app_type: inferred,
        origin: s.at.clone(),
        target,
        routes,
        process: managed.then_some(process),
        ssl: own(&s.section("ssl"), globals::ssl),
        compression: own(&s.section("compression"), globals::compression),
        cache: own(&s.section("cache"), globals::cache),
        security: own(&s.section("security"), globals::security),
    }
}

fn app_type(s: &Section<'_>) -> Option<AppType> {
    let all = [
        ("nodejs", AppType::Nodejs),
        ("python", AppType::Python),
        ("java", AppType::Java),
        ("tomcat", AppType::Tomcat),
        ("command", AppType::Command),
        ("proxy", AppType::Proxy),
        ("static", AppType::Static),
    ];
    s.choice("app_type", &all)
}

fn own<T>(s: &Section<'_>, read: impl Fn(&Section<'_>) -> T) -> Option<T> {
    let value = read(s);
    s.present().then_some(value)
}

fn route(s: &Section<'_>, prefix: &str) -> Route {
    if !prefix.starts_with('/') {
        s.faulty("a route's prefix begins with /", "write routes.\"/prefix/\"");
    }
    let target = target(s, false).unwrap_or_else(|| {
        s.faulty("the route has nothing to serve", "add url, urls, root, redirect or respond");
        Target::Respond { status: 404, body: String::new(), content_type: String::new() }
    });
    Route {
        prefix: prefix.to_owned(),
        strip_prefix: s.flag("strip_prefix").unwrap_or(false),
        target,
        origin: s.at.clone(),
        compression: own(&s.section("compression"), globals::compression),
        cache: own(&s.section("cache"), globals::cache),
        security: own(&s.section("security"), globals::security),
    }
}

/// Every kind is read, whichever wins: each reports its own mistakes.
fn target(s: &Section<'_>, managed: bool) -> Option<Target> {
    let (files, proxy, redirect, respond) = (files(s), proxy(s), redirect(s), respond(s));
    let upstream = given(s.node("url")) || given(s.node("urls"));
    let app = managed.then(|| Target::App(proxy.clone()));
    let proxied = (upstream && !managed).then(|| Target::Proxy(proxy.clone()));
    let mut all: Vec<_> = [files.map(Target::Files), app, proxied, redirect, respond].into_iter().flatten().collect();
    if all.len() > 1 {
        s.faulty("more than one of root, url, process, redirect and respond", "keep one and move the others to routes");
    }
    (!all.is_empty()).then(|| all.swap_remove(0))
}

fn files(s: &Section<'_>) -> Option<Files> {
    let root = s.path("root");
    let f = s.section("files");
    let symlinks = [("inside", Symlinks::Inside), ("follow", Symlinks::Follow), ("never", Symlinks::Never)];
    let files = Files {
        root: root.clone().unwrap_or_default(),
        index: f.texts("index").unwrap_or_else(|| vec!["index.html".to_owned()]),
        listing: f.flag("listing").unwrap_or(false),
        spa_fallback: f.text("spa_fallback"),
        precompressed: f.flag("precompressed").unwrap_or(false),
        hidden: f.texts("hidden").unwrap_or_default(),
        cache_control: f.text("cache_control"),
        symlinks: f.choice("symlinks", &symlinks).unwrap_or_default(),
    };
    root.map(|_| files)
}

fn proxy(s: &Section<'_>) -> Proxy {
    let mut urls = s.each("urls", "an upstream such as \"http://127.0.0.1:3000\"", upstream_url).unwrap_or_default();
    if given(s.node("url")) && given(s.node("urls")) {
        s.wrong("urls", "url and urls are both set", Some("keep one of them"));
    }
    if let Some(text) = s.text("url") {
        match upstream_url(&text) {
            Some(url) => urls.push(url),
            None => s.wrong(
                "url",
                format!("\"{text}\" is not an upstream"),
                Some("write \"http://HOST:PORT\", \"https://HOST\" or \"unix:/PATH\""),
            ),
        }
    }
    let strategies = [
        ("round_robin", Strategy::RoundRobin),
        ("least_conn", Strategy::LeastConn),
        ("ip_hash", Strategy::IpHash),
        ("random_two", Strategy::RandomTwo),
        ("least_time", Strategy::LeastTime),
    ];
    Proxy {
        urls,
        strategy: s.choice("strategy", &strategies).unwrap_or_default(),
        health: health(s),
        preserve_host: s.flag("preserve_host").unwrap_or(true),
        upstream_http: s
            .choice("upstream_http", &[("1.1", UpstreamHttp::Http1), ("2", UpstreamHttp::Http2)])
            .unwrap_or_default(),
        connect_timeout: s.duration("connect_timeout").unwrap_or(Duration::from_secs(5)),
        retries: s.number("retries").unwrap_or(1),
        sticky: s.text("sticky"),
        max_in_flight: s.number("max_in_flight"),
        tls_ca: s.path("tls_ca"),
        tls_client_cert: s.path("tls_client_cert"),
    }
}

fn health(s: &Section<'_>) -> Health {
    let path = s.text("health_check");
    if path.as_ref().is_some_and(|path| !path.starts_with('/')) {
        s.wrong("health_check", "the path begins with /", None);
    }
    Health {
        path,
        interval: s.duration("health_interval").unwrap_or(Duration::from_secs(10)),
        timeout: s.duration("health_timeout").unwrap_or(Duration::from_secs(5)),
        expect: s.numbers("health_expect").unwrap_or_default(),
    }
}

fn upstream_url(text: &str) -> Option<UpstreamUrl> {
    if let Some(path) = text.strip_prefix("unix:") {
        return path.starts_with('/').then(|| UpstreamUrl::Unix { path: path.into() });
    }
    let (scheme, rest) = text.split_once("://")?;
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let colon = rest.rfind(':').filter(|i| !rest[*i..].contains(']'));
    let (host, port) = match colon {
        Some(i) => (&rest[..i], rest[i + 1..].parse().ok().filter(|port| *port != 0)?),
        None => (rest, default),
    };
    if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
        return None;
    }
    let host = host.to_owned();
    Some(if default == 80 { UpstreamUrl::Http { host, port } } else { UpstreamUrl::Https { host, port } })
}

fn redirect(s: &Section<'_>) -> Option<Target> {
    let Value::Table(_) = &s.node("redirect")?.value else {
        return s.text("redirect").map(|to| Target::Redirect { to, status: 302 });
    };
    let r = s.section("redirect");
    let status = r.number("status").unwrap_or(302);
    if ![301, 302, 303, 307, 308].contains(&status) {
        r.wrong("status", "not a redirect status", Some("use 301, 302, 303, 307 or 308"));
    }
    Some(Target::Redirect { to: r.text("to").unwrap_or_default(), status })
}

fn respond(s: &Section<'_>) -> Option<Target> {
    let plain = |body| Target::Respond { status: 200, body, content_type: "text/plain; charset=utf-8".to_owned() };
    let Value::Table(_) = &s.node("respond")?.value else { return s.text("respond").map(plain) };
    let r = s.section("respond");
    let status = r.number("status").unwrap_or(200);
    if !(200..=599).contains(&status) {
        r.wrong("status", "not a response status", Some("use 200 to 599"));
    }
    Some(Target::Respond {
        status,
        body: r.text("body").unwrap_or_default(),
        content_type: r.text("content_type").unwrap_or_else(|| "text/plain; charset=utf-8".to_owned()),
    })
}
