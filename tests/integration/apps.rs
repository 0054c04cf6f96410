//! Real apps as people write them: Express, Fastify, Flask, FastAPI, Django, each from a configuration of a dozen lines.

use std::fs;

use harness::{Daemon, repository, skip, wait};
use nix::sys::signal::Signal;

/// Restarts under load: `MIWI_RESTARTS`, or as many as fit every run.
fn restarts() -> usize {
    std::env::var("MIWI_RESTARTS").ok().and_then(|count| count.parse().ok()).unwrap_or(20)
}

/// What the app needs to be there before its test makes sense.
fn installed(name: &str) -> bool {
    let apps = repository().join("tests/apps");
    match name {
        "express" | "fastify" => apps.join(name).join("node_modules").join(name).exists(),
        _ => repository().join("tests/.venv/bin/gunicorn").exists(),
    }
}

fn config(name: &str) -> String {
    let text = fs::read_to_string(repository().join("tests/apps").join(name).join("miwid.toml")).unwrap();
    assert!(text.lines().count() <= 12, "an app needs no more than a dozen lines");
    text
}

/// The same app on a fixed port: `url` makes the strategy *hold*. Python servers are told their address by miwid; node reads PORT.
fn held(name: &str) -> String {
    config(name).replacen("health_check", "url = \"http://127.0.0.1:{port2}\"\nhealth_check", 1)
}

async fn serves_and_survives(name: &str) {
    if !installed(name) {
        skip!("{name} is not installed; tests/run installs it");
    }
    let daemon = Daemon::start(&config(name)).await;
    daemon.app_ready(name).await;
    let site = format!("{name}.test");
    let reply = daemon.get_host(&site, "/").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let pid = daemon.app_pids(name).await[0];
    assert!(reply.text().starts_with(&format!("{name} pid=")), "{}", reply.text());

    daemon.signal_pid(pid, Signal::SIGKILL);
    daemon
        .app_where(name, "a new process is ready", |it| it["state"] == "running" && it["instances"][0]["pid"] != pid)
        .await;
    assert_eq!(daemon.get_host(&site, "/").await.status, 200);
    assert_eq!(daemon.app(name).await["restarts"], 1);

    let logs = daemon.ctl_ok(&["app", "logs", name, "-n", "200"]).await;
    assert!(!logs.stdout.trim().is_empty(), "its output is readable: {logs:?}");
}

async fn restarts_without_a_failure(name: &str, text: &str, strategy: &str) {
    if !installed(name) {
        skip!("{name} is not installed; tests/run installs it");
    }
    let daemon = Daemon::start(text).await;
    assert_eq!(daemon.app_ready(name).await["strategy"], strategy);
    let load = daemon.load(&format!("{name}.test")).connections(20).paths(&["/", "/slow", "/"]).start();
    load.flowing(20).await;
    let times = restarts();
    for _ in 0..times {
        daemon.ctl_ok(&["app", "restart", name]).await;
        load.flowing(5).await;
    }
    let result = load.stop().await;
    result.assert_none_failed();
    println!("{name} {strategy}: {} requests over {times} restarts, slowest {:?}", result.ok, result.slowest);
    let app = wait::for_value(wait::SOON, "it is still well", || daemon.app(name), |it| it["state"] == "running").await;
    assert_eq!(app["restarts"], 0, "restarts on command are not crashes");
}

macro_rules! real_apps {
    ($($name:ident),+) => { $(
        mod $name {
            use super::*;

            const NAME: &str = stringify!($name);

            #[tokio::test(flavor = "multi_thread")]
            async fn serves_survives_a_kill_and_shows_its_logs() {
                serves_and_survives(NAME).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn rolls_under_load_without_a_failed_request() {
                restarts_without_a_failure(NAME, &config(NAME), "rolling").await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn is_held_under_load_without_a_failed_request() {
                restarts_without_a_failure(NAME, &held(NAME), "hold").await;
            }
        }
    )+ };
}

real_apps!(express, fastify, flask, fastapi, django);

#[tokio::test(flavor = "multi_thread")]
async fn the_heap_of_node_follows_the_memory_limit() {
    if !installed("express") {
        skip!("express is not installed; tests/run installs it");
    }
    let text = config("express").replacen(".process]\n", ".process]\nmemory_limit = \"200MB\"\n", 1);
    assert!(text.contains("memory_limit"));
    let daemon = Daemon::start(&text).await;
    daemon.app_ready("express").await;
    let pid = daemon.app_pids("express").await[0];
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains("NODE_OPTIONS=--max-old-space-size=150"));
}
