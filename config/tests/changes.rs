//! The difference of two configurations.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use config::{Capabilities, diff, load_text};

const BEFORE: &str = "[server]\nhttp_port = 80\nbind = [\"127.0.0.1\"]\n[backends.a]\nname = \"shop\"\n[backends.a.process]\ncommand = \"x\"\n\
                      env = { A = \"1\" }\n[backends.b]\nurl = \"http://b\"\n[backends.b.routes.\"/s\"]\nroot = \"/x\"\n";

fn check(before: &str, after: &str, expected: &[&str]) {
    let config = |text| load_text(Path::new("/m.toml"), text, &[], &Capabilities::default()).unwrap().config;
    let changes: Vec<_> = diff(&config(before), &config(after))
        .into_iter()
        .map(|it| format!("{} {} {}", it.kind, it.name, it.action))
        .collect();
    assert_eq!(changes, expected, "{after}");
}

fn check_edit(from: &str, to: &str, expected: &[&str]) {
    assert!(BEFORE.contains(from));
    check(BEFORE, &BEFORE.replace(from, to), expected);
}

#[test]
fn moving_lines_changes_nothing() {
    check(BEFORE, &format!("# a comment\n\n{BEFORE}"), &[]);
}

#[test]
fn every_kind_of_change_is_named() {
    check_edit("A = \"1\"", "A = \"2\"", &["app shop changed"]);
    check_edit("http://b", "http://c", &["upstream b changed"]);
    check_edit("\"/x\"", "\"/y\"", &["route b/s changed"]);
    check_edit("[backends.b]\n", "[backends.b]\naliases = [\"c\"]\n", &["site b changed"]);
    check_edit(
        "http_port = 80",
        "http_port = 81",
        &["listener http://127.0.0.1:81 added", "listener http://127.0.0.1:80 removed"],
    );
    check_edit("[server]\n", "[server]\nkeepalive_timeout = 9\n", &["setting server.keepalive_timeout changed"]);
    check_edit(
        "[server]\n",
        "[server.limits]\nmax_headers = 9\n[server]\n",
        &["setting server.limits.max_headers changed"],
    );
    check_edit("\"x\"", "\"x\"\ninstances = 2", &["app shop changed"]);
    check_edit("[backends.b]\n", "[backends.b]\nretries = 9\n", &["upstream b changed"]);
}

#[test]
fn things_come_and_go() {
    let more = format!("{BEFORE}[backends.c]\n[backends.c.process]\ncommand = \"y\"\n");
    check(BEFORE, &more, &["site c added", "app c added", "upstream c added"]);
    check(&more, BEFORE, &["site c removed", "app c removed", "upstream c removed"]);
}

#[test]
fn some_settings_need_a_restart() {
    check_edit("[server]\n", "[server]\nworkers = 3\n", &["setting server.workers needs-restart"]);
    check_edit(
        "[server]\n",
        "[server]\nstate_dir = \"/s\"\nuser = \"u\"\n",
        &["setting server.state_dir needs-restart", "setting server.user needs-restart"],
    );
    check_edit(
        "[server]\n",
        "[admin]\nlisten = \"off\"\n[control]\nsocket = \"/c\"\n[server]\n",
        &["setting admin.listen needs-restart", "setting control.socket needs-restart"],
    );
}

#[test]
fn a_changed_secret_is_named_but_not_shown() {
    let with = |token| format!("[cloudflare]\napi_token = {token:?}\n");
    check(&with("a"), &with("b"), &["setting cloudflare changed"]);
}
