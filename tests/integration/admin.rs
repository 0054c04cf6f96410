//! The admin listener, and what of it the public listeners answer.

use std::{io::Write, process::Stdio};

use bytes::Bytes;
use harness::{Daemon, Origin, get};
use http::{Request, header};

const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:{port2}\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn health_ready_and_metrics_live_on_the_admin_listener() {
    let origin = Origin::start("origin").await;
    let config = format!("{ADMIN}[backends.\"a.test\"]\nurl = \"{}\"\n", origin.url());
    let daemon = Daemon::start(&config).await;
    daemon.load("a.test").requests(50).run().await.assert_none_failed();
    let admin = daemon.address(2);
    assert_eq!(get(admin, "localhost", "/health").await.unwrap().status, 200);
    let ready = get(admin, "localhost", "/ready").await.unwrap();
    assert_eq!(ready.status, 200);
    assert!(ready.json().is_object());
    let metrics = get(admin, "localhost", "/metrics").await.unwrap().text();
    let counted: f64 = metrics
        .lines()
        .filter(|it| it.starts_with("http_requests_total{") && it.contains("status=\"200\""))
        .filter_map(|it| it.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(counted >= 50.0, "{metrics}");
    for family in ["http_request_duration_seconds_bucket", "miwid_connections", "miwid_reloads_total"] {
        assert!(metrics.contains(family), "{family} is missing in:\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exposition_passes_promtool() {
    let daemon = Daemon::start(&format!("{ADMIN}{}", crate::lifecycle::managed(&[], ""))).await;
    daemon.app_ready("chaos").await;
    daemon.get_host("chaos.test", "/").await;
    let metrics = get(daemon.address(2), "localhost", "/metrics").await.unwrap();
    let promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else { harness::skip!("promtool is not installed") };
    promtool.stdin.take().unwrap().write_all(&metrics.body).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_listener_answers_health_to_the_machine_itself_only() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&format!("[backends.\"a.test\"]\nurl = \"{}\"\n", origin.url())).await;
    let own = daemon.get_host("localhost", "/health").await;
    assert_eq!(own.status, 200);
    assert_eq!(origin.probes(), 0, "it was not the app's");
    assert_eq!(daemon.get_host("a.test", "/health").await.text(), "health", "an app's own path reaches the app");
    for name in ["x-forwarded-for", "forwarded", "cf-connecting-ip", "via"] {
        let ask =
            Request::get("/metrics").header(header::HOST, "localhost").header(name, "203.0.113.9").body(Bytes::new());
        let reply = daemon.request(ask.unwrap()).await;
        assert_ne!(reply.status, 200, "a request that came through a proxy ({name}) is not the machine's own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_claims_localhost_gets_its_own_health() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&format!("[backends.\"localhost\"]\nurl = \"{}\"\n", origin.url())).await;
    assert_eq!(daemon.get("/health").await.text(), "health");
    assert_eq!(origin.probes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_app_is_degraded_not_unready() {
    let daemon = Daemon::start(&format!("{ADMIN}{}", crate::lifecycle::managed(&["--exit-code", "1"], ""))).await;
    daemon.app_in_state("chaos", "crash-loop").await;
    let ready = get(daemon.address(2), "localhost", "/ready").await.unwrap();
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("chaos"), "the reason names it: {}", ready.text());
    assert_eq!(daemon.ctl_json(&["status"]).await["state"], "degraded");
}
