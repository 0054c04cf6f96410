//! `rate_limit`: one a minute where the clock of the machine is, so that nothing here depends on how fast it is.

use std::process::Stdio;

use harness::{Daemon, Origin, repository, skip, wait};

use super::{SERVER, asked, asked_over_http2, counted, field, status, told, upgrade};
use crate::cloudflare::peer::{LOG, ask, from, get, logged};

fn served() -> (u16, String) {
    (200, String::new())
}

fn limited() -> (u16, String) {
    (429, "rate-limit".to_owned())
}

const SITES: &str = r#"
[backends."a.test"]
root = "{dir}/www"

[backends."b.test"]
respond = { status = 200, body = "b" }

[backends."own.test"]
respond = { status = 200, body = "own" }
security.rate_limit = 1

[backends."free.test"]
respond = { status = 200, body = "free" }
security.rate_limit_exempt = ["0.0.0.0/0", "::/0"]
"#;

async fn start(security: &str) -> Daemon {
    Daemon::builder(&format!("{SERVER}{LOG}{security}{SITES}")).file("www/a.txt", "a").start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_that_take_over_a_limit_share_it_and_others_have_their_own() {
    let daemon = start("[security]\nrate_limit = 1\nrate_limit_exempt = [\"10.0.0.0/8\"]\n").await;
    for (peer, host, expected) in [
        ("192.0.2.1", "a.test", served()),
        ("192.0.2.1", "a.test", limited()),
        ("192.0.2.1", "b.test", limited()),
        ("192.0.2.1", "nobody.test", limited()),
        ("192.0.2.1", "own.test", served()),
        ("192.0.2.1", "own.test", limited()),
        ("192.0.2.1", "free.test", served()),
        ("192.0.2.1", "free.test", served()),
        ("192.0.2.2", "b.test", served()),
        ("192.0.2.2", "a.test", limited()),
        // Who has one address of a /64 has them all.
        ("2001:db8::1", "a.test", served()),
        ("2001:db8::ffff:ffff:2", "a.test", limited()),
        ("2001:db8:0:1::1", "a.test", served()),
        ("10.0.0.1", "a.test", served()),
        ("10.0.0.1", "a.test", served()),
        ("10.0.0.1", "b.test", served()),
    ] {
        assert_eq!(asked(&daemon, peer, host, "/a.txt").await, expected, "{peer} {host}");
    }
    counted(&daemon, "miwid_policy_refusals_total{reason=\"rate-limit\",mode=\"enforce\"}", 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_hears_when_to_come_again_over_every_protocol() {
    let origin = Origin::start("origin").await;
    let site = format!("[backends.\"c.test\"]\nurl = \"{}\"\n", origin.url());
    let daemon = start(&format!("[security]\nrate_limit = 1\n{site}")).await;
    // One connection, and what it asks for is a file that is at hand.
    let mut stream = from(&daemon, 1, "192.0.2.1").await;
    let heads = [
        ask(&mut stream, &get("/a.txt", "a.test", "")).await.expect("an answer").0,
        ask(&mut stream, &get("/a.txt", "a.test", "")).await.expect("an answer").0,
        ask(&mut stream, &get("/a.txt", "a.test", "")).await.expect("an answer").0,
    ];
    assert_eq!(heads.each_ref().map(|it| status(it)), [200, 429, 429]);
    let after: u64 = field(&heads[2], "retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(field(&heads[2], "cache-control"), "no-store");
    assert_eq!(asked_over_http2(&daemon, "192.0.2.2", "a.test", 3).await, [served(), limited(), limited()]);
    // A WebSocket is a request like others until it is open.
    assert_eq!(told(&daemon, "192.0.2.3", &get("/", "c.test", "")).await, served());
    assert_eq!(told(&daemon, "192.0.2.3", &upgrade("c.test")).await, limited());
    assert_eq!(told(&daemon, "192.0.2.4", &get("/", "c.test", "")).await, served());
    let call = "content-type: application/grpc\r\naccept: application/json\r\n";
    assert_eq!(told(&daemon, "192.0.2.4", &get("/", "c.test", call)).await.1, "rate-limit");
    assert_eq!(origin.requests(), 2);
    assert_eq!(asked(&daemon, "127.0.0.1", "localhost", "/health").await, served());
    assert_eq!(asked(&daemon, "127.0.0.1", "localhost", "/health").await, served());
    let lines = logged(&daemon, 12).await;
    assert_eq!(lines.iter().filter(|it| it["reason"] == "rate-limit").count(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn http3_counts_as_the_others_do() {
    let python = repository().join("tests/.venv/bin/python");
    let mut able = std::process::Command::new(&python);
    able.args(["-c", "import aioquic, niquests, curl_cffi"]).stderr(Stdio::null());
    if !able.status().is_ok_and(|it| it.success()) {
        skip!("the Python clients of HTTP/3 are not installed (tests/run install)");
    }
    let server = "[server]\nhttps_port = {port2}\nenable_https = true\n[ssl]\nissuer = \"local\"\n\
                  [security]\nrate_limit = 1\n[backends.\"localhost\"]\nrespond = { status = 200, body = \"a\" }\n\
                  [backends.\"localhost\".routes.\"/closed\"]\nrespond = { status = 200, body = \"b\" }\n\
                  security.deny = [\"127.0.0.0/8\", \"::1\"]\nsecurity.rate_limit_exempt = [\"0.0.0.0/0\", \"::/0\"]\n";
    let daemon = Daemon::start(server).await;
    daemon.write("ca.pem", &daemon.ctl_ok(&["cert", "trust", "--print"]).await.stdout);
    let output = tokio::process::Command::new(&python)
        .arg(repository().join("tests/integration/http3/client.py"))
        .args(["refused", &daemon.address(2).port().to_string()])
        .arg(daemon.dir().join("ca.pem"))
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(wait::LATER, output).await.expect("it ends").expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_forgives_nobody_and_forgets_nobody() {
    let with = |more: &str| format!("[security]\nrate_limit = 1\n{more}");
    let daemon = start(&with("")).await;
    assert_eq!(asked(&daemon, "192.0.2.1", "a.test", "/a.txt").await, served());
    assert_eq!(asked(&daemon, "192.0.2.1", "own.test", "/").await, served());
    daemon.rewrite_config(&format!("{SERVER}{LOG}{}{SITES}", with("deny = [\"192.0.2.9\"]\n")));
    let output = daemon.reload().await;
    assert_eq!(output.status, 0, "{}", output.all());
    for (peer, host, expected) in [
        ("192.0.2.9", "a.test", (403, "denied".to_owned())),
        ("192.0.2.1", "a.test", limited()),
        ("192.0.2.1", "own.test", limited()),
        ("192.0.2.2", "a.test", served()),
    ] {
        assert_eq!(asked(&daemon, peer, host, "/a.txt").await, expected, "{peer} {host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_reports_lets_pass_and_counts() {
    let daemon = start("[security]\nrate_limit = 1\nmode = \"report\"\n").await;
    for _ in 0..4 {
        assert_eq!(asked(&daemon, "192.0.2.1", "a.test", "/a.txt").await, served());
    }
    counted(&daemon, "miwid_policy_refusals_total{reason=\"rate-limit\",mode=\"report\"}", 3).await;
    let reasons: Vec<_> = logged(&daemon, 4).await.iter().map(|it| it["reason"].clone()).collect();
    assert_eq!(reasons.iter().filter(|it| **it == "would-rate-limit").count(), 3, "{reasons:?}");
}
