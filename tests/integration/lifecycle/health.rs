//! D. Health: what a probe says and what it moves.

use harness::{Daemon, Reply, get, wait};

use super::{app, managed};

/// An app whose health a test sets by writing the file `health`.
fn patient(process: &str) -> String {
    let backend = "health_check = \"/health\"\nhealth_interval = \"100ms\"\nhealth_timeout = \"500ms\"";
    app("chaos", backend, &["--health-file", "{dir}/health"], process)
}

async fn stats(daemon: &Daemon) -> serde_json::Value {
    daemon.get_host("chaos.test", "/stats").await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_endpoint_becomes_unready_with_one_probe_at_a_time() {
    let daemon = Daemon::start(&patient("")).await;
    daemon.app_ready("chaos").await;
    daemon.write("health", "hang");
    daemon.app_where("chaos", "it is unready", |it| it["instances"][0]["state"] == "unready").await;
    // Fail-open: the only instance goes on serving, so its own numbers can be read through the proxy.
    let stats = stats(&daemon).await;
    assert!(stats["probes_at_once_max"].as_u64().is_some_and(|it| it <= 1), "{stats}");
    daemon.write("health", "200");
    daemon.app_ready("chaos").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_500_takes_a_slot_out_and_a_200_brings_it_back() {
    let daemon = Daemon::start(&patient("")).await;
    daemon.app_ready("chaos").await;
    daemon.write("health", "500");
    daemon.app_where("chaos", "it is unready", |it| it["instances"][0]["state"] == "unready").await;
    daemon.write("health", "200");
    let app = daemon.app_ready("chaos").await;
    assert_eq!(app["restarts"], 0, "readiness routes, it does not restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_unready_serves_or_refuses_as_configured() {
    for (wish, expected) in [("serve", 200), ("refuse", 503)] {
        let daemon = Daemon::start(&patient(&format!("on_all_unready = \"{wish}\""))).await;
        daemon.app_ready("chaos").await;
        daemon.write("health", "500");
        daemon.app_where("chaos", "it is unready", |it| it["instances"][0]["state"] == "unready").await;
        wait::for_value(
            wait::SOON,
            &format!("on_all_unready = {wish} answers {expected}"),
            async || daemon.get_host("chaos.test", "/").await.status,
            |status| *status == expected,
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirecting_or_missing_health_path_is_explained() {
    for health in ["301", "404"] {
        let daemon = Daemon::start(&managed(&["--health", health], "start_timeout = \"2s\"")).await;
        let output = daemon.ctl(&["app", "restart", "chaos"]).await;
        assert_eq!(output.status, 6, "{output:?}");
        assert!(output.all().contains(health), "the status that the path answered is told: {output:?}");
        daemon.told_any("chaos", &[&format!("/health returned {health}"), &format!("/health: {health}")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_carries_the_sites_name_and_leaves_no_access_record() {
    let daemon = Daemon::start(&patient("")).await;
    daemon.app_ready("chaos").await;
    let stats = stats(&daemon).await;
    assert_eq!(stats["probe_host"], "chaos.test");
    assert!(stats["probe_agent"].as_str().is_some_and(|it| it.starts_with("miwid-health")), "{stats}");
    let reply: Reply = get(daemon.http(), "chaos.test", "/marker").await.unwrap();
    assert_eq!(reply.status, 404);
    wait::until(wait::SOON, "the access log has the request", async || daemon.read("access.log").contains("/marker"))
        .await;
    assert!(!daemon.read("access.log").contains("/health"), "probes are not traffic");
}

// 44. Flapping one to one: out, in, and then out until it answers twice in a row.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_flaps_is_left_out_after_the_second_time() {
    let probes = "[backends.\"chaos.test\".process.probes]\n\
        readiness = { http = \"/health\", interval = \"100ms\", failures = 1 }";
    let daemon = Daemon::start(&patient(probes)).await;
    daemon.app_ready("chaos").await;
    daemon.write("health", "flap:1");
    wait::until(wait::SOON, "it is told", async || daemon.ctl_ok(&["events"]).await.stdout.contains("app.flapping"))
        .await;
    let text = daemon.ctl_ok(&["events"]).await.stdout;
    let changes =
        text.lines().filter(|it| ["app.unready", "app.flapping"].iter().any(|kind| it.contains(kind))).count();
    assert_eq!(changes, 2, "{text}");
    assert_eq!(daemon.app("chaos").await["instances"][0]["state"], "unready");
    daemon.write("health", "200");
    daemon.app_ready("chaos").await;
}
