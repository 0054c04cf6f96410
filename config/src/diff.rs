//! What changed between two configurations, thing by thing.
//!
//! Where something was written does not count: a comment more is no change.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value as Json;

use crate::{AppType, Backend, Config, Origin, Process, Proxy, Route, Target, UpstreamUrl};

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `site`, `route`, `listener`, `app`, `upstream` or `setting`.
    pub kind: String,
    pub name: String,
    /// `added`, `removed`, `changed` or `needs-restart`.
    pub action: String,
}

/// Settings that only a new process takes up.
const NEEDS_RESTART: [&str; 8] = [
    "server.workers",
    "server.user",
    "server.group",
    "server.state_dir",
    "server.io_backend",
    "control.socket",
    "control.group",
    "admin.listen",
];

/// Settings that show as listeners.
const LISTENER_KEYS: [&str; 4] = ["server.bind", "server.http_port", "server.https_port", "server.enable_https"];

pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    by_name(&mut changes, "site", &sites(old), &sites(new));
    by_name(&mut changes, "route", &routes(old), &routes(new));
    listeners(&mut changes, old, new);
    by_name(&mut changes, "app", &apps(old), &apps(new));
    by_name(&mut changes, "upstream", &upstreams(old), &upstreams(new));
    settings(&mut changes, "server", &old.server, &new.server);
    settings(&mut changes, "admin", &old.admin, &new.admin);
    settings(&mut changes, "control", &old.control, &new.control);
    settings(&mut changes, "ssl", &old.ssl, &new.ssl);
    settings(&mut changes, "cloudflare", &old.cloudflare, &new.cloudflare);
    settings(&mut changes, "acme", &old.acme, &new.acme);
    settings(&mut changes, "compression", &old.compression, &new.compression);
    settings(&mut changes, "cache", &old.cache, &new.cache);
    settings(&mut changes, "security", &old.security, &new.security);
    settings(&mut changes, "logging", &old.logging, &new.logging);
    settings(&mut changes, "tracing", &old.tracing, &new.tracing);
    settings(&mut changes, "metrics", &old.metrics, &new.metrics);
    changes
}

fn push(changes: &mut Vec<Change>, kind: &str, name: &str, action: &str) {
    changes.push(Change { kind: kind.to_owned(), name: name.to_owned(), action: action.to_owned() });
}

fn by_name<T: PartialEq>(changes: &mut Vec<Change>, kind: &str, old: &[(String, T)], new: &[(String, T)]) {
    let find = |list: &[(String, T)], name: &str| list.iter().position(|it| it.0 == name);
    for (name, thing) in new {
        match find(old, name) {
            None => push(changes, kind, name, "added"),
            Some(i) if old[i].1 != *thing => push(changes, kind, name, "changed"),
            Some(_) => {}
        }
    }
    for (name, _) in old.iter().filter(|(name, _)| find(new, name).is_none()) {
        push(changes, kind, name, "removed");
    }
}

/// Sites without what shows as routes, apps and upstreams.
fn sites(config: &Config) -> Vec<(String, Backend)> {
    let bare = |backend: &Backend| Backend {
        origin: Origin::default(),
        target: bare(&backend.target),
        routes: Vec::new(),
        process: None,
        ..backend.clone()
    };
    config.backends.values().map(|it| (it.name.clone(), bare(it))).collect()
}

fn routes(config: &Config) -> Vec<(String, Route)> {
    let bare = |route: &Route| Route { origin: Origin::default(), target: bare(&route.target), ..route.clone() };
    let of = |backend: &Backend| {
        let name = backend.name.clone();
        backend.routes.iter().map(move |it| (format!("{name}{}", it.prefix), bare(it))).collect::<Vec<_>>()
    };
    config.backends.values().flat_map(of).collect()
}

/// The kind of target; the upstream behind it is compared by itself.
fn bare(target: &Target) -> Target {
    let word = |word: &str| Target::Redirect { to: word.to_owned(), status: 0 };
    match target {
        Target::Proxy(_) => word("proxy"),
        Target::App(_) => word("app"),
        other => other.clone(),
    }
}

/// What an app is started from: its type, its process and the addresses that the configuration fixes.
type Recipe = (AppType, Process, Vec<UpstreamUrl>);

fn apps(config: &Config) -> Vec<(String, Recipe)> {
    let app = |backend: &Backend| {
        let process = backend.process.clone()?;
        let process = Process { origin: Origin::default(), working_dir_origin: Origin::default(), ..process };
        let urls = match &backend.target {
            Target::App(proxy) => proxy.urls.clone(),
            _ => Vec::new(),
        };
        Some((backend.name.clone(), (backend.app_type, process, urls)))
    };
    config.backends.values().filter_map(app).collect()
}

fn upstreams(config: &Config) -> Vec<(String, Proxy)> {
    let proxy = |target: &Target| match target {
        Target::Proxy(proxy) | Target::App(proxy) => Some(proxy.clone()),
        _ => None,
    };
    let mut upstreams = Vec::new();
    for backend in config.backends.values() {
        upstreams.extend(proxy(&backend.target).map(|it| (backend.name.clone(), it)));
        for route in backend.routes.iter().filter(|it| it.target != backend.target) {
            upstreams.extend(proxy(&route.target).map(|it| (format!("{}{}", backend.name, route.prefix), it)));
        }
    }
    upstreams
}

fn listeners(changes: &mut Vec<Change>, old: &Config, new: &Config) {
    let (old, new) = (addresses(old), addresses(new));
    for address in new.difference(&old) {
        push(changes, "listener", address, "added");
    }
    for address in old.difference(&new) {
        push(changes, "listener", address, "removed");
    }
}

fn addresses(config: &Config) -> BTreeSet<String> {
    let server = &config.server;
    let ports = [(true, "http", server.http_port), (config.https(), "https", server.https_port)];
    let mut addresses = BTreeSet::new();
    for (_, protocol, port) in ports.into_iter().filter(|(on, _, port)| *on && *port != 0) {
        addresses.extend(server.bind.iter().map(|ip| format!("{protocol}://{}", std::net::SocketAddr::new(*ip, port))));
    }
    addresses
}

fn settings<T: Serialize + PartialEq>(changes: &mut Vec<Change>, table: &str, old: &T, new: &T) {
    if old == new {
        return;
    }
    let json = |it: &T| serde_json::to_value(it).unwrap_or_default();
    let before = changes.len();
    keys(changes, table, &json(old), &json(new));
    // What differs may be a secret, which looks the same; the setting is named without showing it. Listeners were named.
    if changes.len() == before && json(old) == json(new) {
        push(changes, "setting", table, "changed");
    }
}

fn keys(changes: &mut Vec<Change>, path: &str, old: &Json, new: &Json) {
    if old == new || LISTENER_KEYS.contains(&path) {
        return;
    }
    match (old, new) {
        (Json::Object(old), Json::Object(new)) if !new.contains_key("secs") => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let of = |map: &serde_json::Map<String, Json>| map.get(name).cloned().unwrap_or_default();
                keys(changes, &format!("{path}.{name}"), &of(old), &of(new));
            }
        }
        _ => {
            let action = if NEEDS_RESTART.contains(&path) { "needs-restart" } else { "changed" };
            push(changes, "setting", path, action);
        }
    }
}
