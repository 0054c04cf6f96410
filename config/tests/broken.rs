//! Broken configurations and what is said about them.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use config::*;

fn problems(text: &str, capabilities: &Capabilities) -> Vec<String> {
    let problems = load_text(Path::new("/c.toml"), text, &[], capabilities).expect_err(text);
    problems
        .iter()
        .map(|p| format!("{}:{} {} {} [{}]", p.line, p.column, p.key, p.message, p.hint.as_deref().unwrap_or("")))
        .collect()
}

/// Text, and the whole first problem.
const CASES: &[(&str, &str)] = &[
    ("[server]\nhttp_prot = 1", "2:1 server.http_prot unknown key [did you mean \"http_port\"?]"),
    ("[servr]", "1:2 servr unknown key [did you mean \"server\"?]"),
    ("server = 3", "1:1 server expected a table, found an integer []"),
    (
        "[server]\nhttp_port = \"80\"",
        "2:1 server.http_port expected an integer that fits 16 bits and is not negative, found a string []",
    ),
    (
        "[server]\nhttp_port = 70000",
        "2:1 server.http_port expected an integer that fits 16 bits and is not negative, found 70000 []",
    ),
    ("[server]\nh2c = 1", "2:1 server.h2c expected true or false, found 1 []"),
    (
        "[server]\nrequest_timeout = \"soon\"",
        "2:1 server.request_timeout expected a duration such as 30, \"30s\" or \"5m\", found a string []",
    ),
    (
        "[server.limits]\nmax_request_size = \"10XB\"",
        "2:1 server.limits.max_request_size expected a size such as \"10MB\", found a string []",
    ),
    (
        "[server]\nio_backend = \"kqueue\"",
        "2:1 server.io_backend \"kqueue\" is not a known value [use \"auto\", \"epoll\", \"io_uring\"]",
    ),
    ("[server]\nbind = [\"here\"]", "2:1 server.bind \"here\" is not an IP address []"),
    (
        "[server]\nuser = \"${MIWI_NOT_SET}\"",
        "2:1 server.user environment variable MIWI_NOT_SET is not set [set it, or write ${MIWI_NOT_SET:-default}]",
    ),
    (
        "[admin]\nlisten = \"9180\"",
        "2:1 admin.listen \"9180\" is not an address with a port [write \"127.0.0.1:9180\" or \"off\"]",
    ),
    ("[ssl]\ncert = \"a.pem\"", "2:1 ssl.cert cert is set without key [add key = \"FILE\"]"),
    ("[security]\ndeny = [\"10.0.0.0/99\"]", "2:1 security.deny \"10.0.0.0/99\" is not an IP address or network []"),
    (
        "[backends.\"a.b\"]\nname = \"x\"",
        "1:11 backends.\"a.b\" the backend has nothing to serve [add url, urls, root, redirect, respond, routes or a process]",
    ),
    (
        "[backends.a]\nurl = \"http://x\"\nurls = [\"http://y\"]",
        "3:1 backends.a.urls url and urls are both set [keep one of them]",
    ),
    (
        "[backends.a]\nurl = \"ftp://x\"",
        "2:1 backends.a.url \"ftp://x\" is not an upstream [write \"http://HOST:PORT\", \"https://HOST\" or \"unix:/PATH\"]",
    ),
    (
        "[backends.a]\napp_type = \"static\"\nurl = \"http://x\"",
        "2:1 backends.a.app_type a static site needs root [add root = \"DIRECTORY\"]",
    ),
    (
        "[backends.a.process]\ncommand = \"x\"\nauto_restart = \"maybe\"",
        "3:1 backends.a.process.auto_restart expected true, false or \"on-failure\" []",
    ),
    (
        "[backends.a.process]\nstop_signal = \"SIGNOPE\"",
        "2:1 backends.a.process.stop_signal not a signal [use \"SIGTERM\", \"SIGINT\", \"SIGQUIT\" or a number]",
    ),
    (
        "[backends.a]\nurl = \"http://x\"\nhealth_check = \"up\"",
        "3:1 backends.a.health_check the path begins with / []",
    ),
];

#[test]
fn every_broken_configuration_gets_its_diagnostic() {
    let wrong: Vec<_> = CASES
        .iter()
        .map(|(text, expected)| (text, expected, problems(text, &Capabilities::default())))
        .filter(|(_, expected, found)| found.first().map(String::as_str) != Some(**expected))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn all_problems_are_reported_at_once() {
    assert_eq!(problems("[server]\na_b_c_d_e = 1\nh2c = 3\n[nonsensical]\n", &Capabilities::default()).len(), 3);
}

#[test]
fn a_key_or_a_value_whose_feature_is_absent_is_refused() {
    let unavailable = vec![
        ("tracing.**", "not available in this version".to_owned()),
        ("backends.*.strategy=least_time", "not yet".to_owned()),
    ];
    let capabilities = Capabilities { unavailable };
    let found = problems(
        "[tracing]\nsample_ratio = 1.0\n[backends.a]\nurl = \"http://x\"\nstrategy = \"least_time\"",
        &capabilities,
    );
    assert_eq!(
        found,
        ["2:1 tracing.sample_ratio not available in this version []", "5:1 backends.a.strategy not yet []"]
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in ".{0,80}", key in "[a-z_.]{0,12}") {
        let _ = load_text(Path::new("/c.toml"), &text, &[(key, text.clone())], &Capabilities::default());
    }
}
