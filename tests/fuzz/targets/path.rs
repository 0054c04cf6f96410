//! Request targets and what becomes of them: the route that matches, the path that is handed on, the file that is opened.
//! The three must mean one resource; where they part, the rules of a route can be walked around.
#![no_main]

use std::{
    ffi::OsStr,
    fmt::Write,
    os::unix::ffi::OsStrExt,
    path::{Component, Path},
    sync::Arc,
};

use http::{StatusCode, Uri, uri::PathAndQuery};
use libfuzzer_sys::{Corpus, fuzz_target};
use miwid::{
    files::fuzzing::{Located, locate},
    routing::{Hosts, Plan, Route, Site, Target, normalized, plan},
};

thread_local! {
    static HOSTS: Hosts = hosts();
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = str::from_utf8(data) else { return Corpus::Reject };
    if text.starts_with('/') {
        judge(text);
    }
    if let Ok(uri) = Uri::try_from(data)
        && uri.path().starts_with('/')
    {
        let path = judge(uri.path());
        if let Some(path) = path {
            assert!(PathAndQuery::try_from(path.as_str()).is_ok(), "{path:?} cannot be asked for");
        }
    }
    Corpus::Keep
});

/// What the target is asked for, if anything is.
fn judge(path: &str) -> Option<String> {
    let clean = normalized(path);
    if let Some(clean) = &clean {
        resolved(clean);
    }
    if let Ok(located) = locate(path) {
        stays_below_the_root(&located);
        is_what_was_routed(&located, clean.as_deref());
    }
    HOSTS.with(|hosts| match plan(hosts, "site", path) {
        Ok(plan) => {
            means_the_same(&plan, &clean.expect("a path that cannot be resolved is not planned"));
            Some(plan.path.into_owned())
        }
        Err(_) => {
            assert!(clean.is_none(), "nobody answers {clean:?}");
            None
        }
    })
}

fn resolved(clean: &str) {
    assert!(clean.starts_with('/') && !clean.contains("//"), "{clean:?}");
    assert!(clean.split('/').all(|it| it != "." && it != ".."), "{clean:?}");
    // A `%` is a name's own here, and would be decoded once more.
    if !clean.contains('%') {
        assert_eq!(normalized(clean).as_deref(), Some(clean));
    }
}

fn stays_below_the_root(located: &Located) {
    let root = Path::new("/srv/site");
    let relative = Path::new(OsStr::from_bytes(&located.relative));
    assert!(root.join(relative).starts_with(root), "{relative:?}");
    assert!(relative.components().all(|it| matches!(it, Component::Normal(_))), "{relative:?}");
    assert!(!located.relative.iter().any(|it| it.is_ascii_control() || *it == b'\\'), "{relative:?}");
    let hidden = |(at, name): (usize, &[u8])| name.starts_with(b".") && !(at == 0 && name == b".well-known");
    assert!(!located.relative.split(|it| *it == b'/').enumerate().any(hidden), "{relative:?}");
    // Every byte escaped, it is the same place.
    let mut escaped = String::from("/");
    for byte in &located.relative {
        let _ = match byte {
            b'/' => escaped.write_char('/'),
            byte => write!(escaped, "%{byte:02x}"),
        };
    }
    if located.slash && !located.relative.is_empty() {
        escaped.push('/');
    }
    assert_eq!(locate(&escaped).as_ref(), Ok(located));
}

/// The file that is opened is the one that the route was chosen for.
fn is_what_was_routed(located: &Located, clean: Option<&str>) {
    let Ok(relative) = str::from_utf8(&located.relative) else {
        return assert!(clean.is_none(), "{clean:?} is not what {located:?} names");
    };
    let slash = if located.slash && !relative.is_empty() { "/" } else { "" };
    assert_eq!(clean, Some(format!("/{relative}{slash}").as_str()));
}

/// A prefix is taken off the meaning of a path, not off its spelling.
fn means_the_same(plan: &Plan<'_>, clean: &str) {
    let expected = match plan.route.strip_prefix {
        true => clean.strip_prefix(plan.route.prefix.trim_end_matches('/')).expect("the route covers the path"),
        false => clean,
    };
    let expected = if expected.is_empty() { "/" } else { expected };
    assert_eq!(normalized(&plan.path).as_deref(), Some(expected), "{:?} below {}", plan.path, plan.route.prefix);
}

fn hosts() -> Hosts {
    let route = |prefix: &str, strip_prefix| Route {
        compression: None,
        extra: None,
        guard: None,
        prefix: prefix.into(),
        strip_prefix,
        target: Target::Redirect { to: "/".into(), status: StatusCode::FOUND },
    };
    let routes = vec![
        route("/static/", true),
        route("/admin/", false),
        route("/a/b", true),
        route("/api", true),
        route("/", false),
    ];
    let mut hosts = Hosts::default();
    hosts.insert("site", &Arc::new(Site { name: "site".into(), routes }));
    hosts
}
