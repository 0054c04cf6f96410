//! What differs between two configurations, by identity: a backend by its host, a route by its prefix.
//!
//! An app counts as changed only when its process did: that is what makes it restart.

use serde::Serialize;

use crate::{Backend, Config};

/// One difference. `kind` is `backend`, `route`, `app`, `listeners` or `settings`; `action` is `added`, `removed`,
/// `changed` or `needs-restart`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub kind: &'static str,
    pub name: String,
    pub action: &'static str,
}

fn change(kind: &'static str, name: &str, action: &'static str) -> Change {
    Change { kind, name: name.to_owned(), action }
}

pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut out = Vec::new();
    for (host, backend) in &old.backends {
        match new.backends.get(host) {
            Some(now) => compare(backend, now, &mut out),
            None => out.push(change("backend", host, "removed")),
        }
    }
    let added = new.backends.keys().filter(|host| !old.backends.contains_key(*host));
    out.extend(added.map(|host| change("backend", host, "added")));
    settings(old, new, &mut out);
    out
}

/// Origins move when a line is added above, so they are levelled before anything is compared.
fn without_places(backend: &Backend) -> Backend {
    let mut backend = backend.clone();
    backend.origin = Default::default();
    for route in &mut backend.routes {
        route.origin = Default::default();
    }
    if let Some(process) = &mut backend.process {
        process.origin = Default::default();
        process.working_dir_origin = Default::default();
    }
    backend
}

fn compare(old: &Backend, new: &Backend, out: &mut Vec<Change>) {
    let (mut old, mut new) = (without_places(old), without_places(new));
    let (before, after) = (old.process.take(), new.process.take());
    if before != after {
        let action = match (&before, &after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        out.push(change("app", &new.name, action));
    }
    for route in &old.routes {
        let name = format!("{}{}", new.host, route.prefix);
        match new.routes.iter().find(|now| now.prefix == route.prefix) {
            None => out.push(change("route", &name, "removed")),
            Some(now) if now != route => out.push(change("route", &name, "changed")),
            Some(_) => {}
        }
    }
    for route in new.routes.iter().filter(|now| old.routes.iter().all(|route| route.prefix != now.prefix)) {
        out.push(change("route", &format!("{}{}", new.host, route.prefix), "added"));
    }
    old.routes.clear();
    new.routes.clear();
    if old != new {
        out.push(change("backend", &new.host, "changed"));
    }
}

fn settings(old: &Config, new: &Config, out: &mut Vec<Change>) {
    let (a, b) = (&old.server, &new.server);
    let ports = |s: &crate::Server| (s.bind.clone(), s.http_port, s.https_port, s.enable_https, s.http3);
    let restart = [
        ("server.workers", a.workers != b.workers),
        ("server.user", a.user != b.user),
        ("server.state_dir", a.state_dir != b.state_dir),
        ("control.socket", old.control.socket != new.control.socket),
    ];
    out.extend(
        restart.iter().filter(|(_, differs)| *differs).map(|(name, _)| change("settings", name, "needs-restart")),
    );
    if ports(a) != ports(b) {
        out.push(change("listeners", "server", "changed"));
    }
    let mut rest = b.clone();
    (rest.workers, rest.user, rest.state_dir) = (a.workers, a.user.clone(), a.state_dir.clone());
    (rest.bind, rest.http_port, rest.https_port) = (a.bind.clone(), a.http_port, a.https_port);
    (rest.enable_https, rest.http3) = (a.enable_https, a.http3);
    let tables = [
        ("server", rest != *a),
        ("admin", old.admin != new.admin),
        ("control", (&old.control.group, &old.control.acl) != (&new.control.group, &new.control.acl)),
        ("ssl", old.ssl != new.ssl),
        ("cloudflare", old.cloudflare != new.cloudflare),
        ("acme", old.acme != new.acme),
        ("compression", old.compression != new.compression),
        ("cache", old.cache != new.cache),
        ("security", old.security != new.security),
        ("logging", old.logging != new.logging),
        ("tracing", old.tracing != new.tracing),
        ("metrics", old.metrics != new.metrics),
    ];
    out.extend(tables.iter().filter(|(_, differs)| *differs).map(|(name, _)| change("settings", name, "changed")));
}

/// The configuration as understood, secrets shown as `***`.
pub fn show(config: &Config) -> serde_json::Value {
    serde_json::to_value(config).unwrap_or_default()
}
