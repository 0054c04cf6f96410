//! Reloads: everything or nothing, and nothing that was not touched notices.

use std::time::Duration;

use harness::{
    Daemon, Origin,
    h2::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RawH2, block},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::lifecycle::{app, managed};

fn site(host: &str, lines: &str) -> String {
    format!("[backends.\"{host}\"]\n{lines}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_under_load_disturbs_nothing_it_does_not_touch() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let urls = format!("urls = [\"{}\", \"{}\"]", one.url(), two.url());
    let kept = app("kept", "", &[], "");
    let before = format!(
        "{kept}{}{}",
        site("both.test", &format!("{urls}\nstrategy = \"round_robin\"")),
        site("leaving.test", &format!("url = \"{}\"", one.url()))
    );
    let after = format!(
        "{kept}{}{}[backends.\"both.test\".routes.\"/new/\"]\nurl = \"{}\"\n",
        site("both.test", &format!("{urls}\nstrategy = \"least_conn\"")),
        site("coming.test", &format!("url = \"{}\"", two.url())),
        two.url()
    );
    let daemon = Daemon::start(&before).await;
    daemon.app_ready("kept").await;
    let pids = daemon.app_pids("kept").await;
    let mut socket = daemon.websocket("kept.test", "/ws").await;
    socket.echo("before").await;
    let apps = daemon.load("kept.test").connections(10).paths(&["/fast", "/slow"]).start();
    let sites = daemon.load("both.test").connections(10).start();
    apps.flowing(20).await;
    sites.flowing(20).await;

    for text in [&after, &before, &after, &before, &after] {
        daemon.rewrite_config(text);
        let output = daemon.reload().await;
        assert_eq!(output.status, 0, "{output:?}");
        apps.flowing(20).await;
        sites.flowing(20).await;
    }

    assert_eq!(daemon.get_host("coming.test", "/").await.text(), "two");
    assert_eq!(daemon.get_host("both.test", "/new/x").await.text(), "two");
    assert_ne!(daemon.get_host("leaving.test", "/").await.status, 200);
    assert_eq!(daemon.app_pids("kept").await, pids, "no app was restarted");
    assert!(socket.is_alive().await, "an open WebSocket of an untouched site lives on");
    apps.stop().await.assert_none_failed();
    sites.stop().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_configuration_is_refused_with_every_problem_and_changes_nothing() {
    let origin = Origin::start("origin").await;
    let good = site("a.test", &format!("url = \"{}\"", origin.url()));
    let daemon = Daemon::start(&good).await;
    let generation = daemon.ctl_json(&["status"]).await["config_generation"].clone();
    daemon.rewrite_config(&format!("{good}\n[cache]\nenabeld = true\n[metrics]\nper_site = 7\n"));
    let output = daemon.reload().await;
    assert_eq!(output.status, 6, "{output:?}");
    assert!(
        output.all().contains("enabeld") && output.all().contains("enabled"),
        "the nearest key is offered: {output:?}"
    );
    assert!(output.all().contains("per_site"), "every problem is listed: {output:?}");
    let document: Value = daemon.ctl_json(&["reload"]).await;
    let text = document.to_string();
    assert!(text.contains("enabeld") && text.contains("\"line\""), "{document}");
    assert_eq!(daemon.ctl_json(&["status"]).await["config_generation"], generation);
    assert_eq!(daemon.get_host("a.test", "/").await.text(), "origin");

    daemon.rewrite_config("this is not toml");
    assert_eq!(daemon.reload().await.status, 6);
    assert_eq!(daemon.get_host("a.test", "/").await.text(), "origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_fails_its_preflight_refuses_the_reload_unless_allowed() {
    let good = managed(&[], "");
    let daemon = Daemon::start(&good).await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    let broken = app("broken", "", &[], "working_dir = \"{dir}/no-such-place\"");
    let origin = Origin::start("added").await;
    let added = site("added.test", &format!("url = \"{}\"", origin.url()));
    daemon.rewrite_config(&format!("{good}{broken}{added}"));
    let output = daemon.reload().await;
    assert_eq!(output.status, 6, "{output:?}");
    assert!(output.all().contains("no-such-place"), "{output:?}");
    assert_ne!(daemon.get_host("added.test", "/").await.status, 200, "refused as a whole");
    let output = daemon.ctl(&["reload", "--allow-failing-apps"]).await;
    assert!([0, 9].contains(&output.status), "{output:?}");
    assert_eq!(daemon.get_host("added.test", "/").await.text(), "added");
    assert_eq!(daemon.app_pids("chaos").await, pids);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_app_whose_environment_changed_rolls() {
    let text = |version: &str| {
        let env = format!("[backends.\"one.test\".process.env]\nVERSION = \"{version}\"\n");
        format!("{}{env}{}", app("one", "", &[], ""), app("two", "", &[], ""))
    };
    let daemon = Daemon::start(&text("v1")).await;
    daemon.app_ready("one").await;
    daemon.app_ready("two").await;
    let (one, two) = (daemon.app_pids("one").await, daemon.app_pids("two").await);
    let load = daemon.load("one.test").start();
    load.flowing(20).await;
    daemon.rewrite_config(&text("v2"));
    let output = daemon.reload().await;
    assert_eq!(output.status, 0, "{output:?}");
    wait::until(wait::LATER, "the new version answers", async || {
        daemon.get_host("one.test", "/").await.text().contains("version=v2")
    })
    .await;
    load.flowing(20).await;
    load.stop().await.assert_none_failed();
    assert_ne!(daemon.app_pids("one").await, one);
    assert_eq!(daemon.app_pids("two").await, two);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reloads_and_a_dry_run_does_not() {
    let (old, new) = (Origin::start("old").await, Origin::start("new").await);
    let daemon = Daemon::start(&site("a.test", &format!("url = \"{}\"", old.url()))).await;
    daemon.rewrite_config(&site("a.test", &format!("url = \"{}\"", new.url())));
    let plan = daemon.ctl_ok(&["reload", "--dry-run"]).await;
    assert!(plan.all().contains("a.test"), "{plan:?}");
    assert_eq!(daemon.get_host("a.test", "/").await.text(), "old");
    daemon.signal(Signal::SIGHUP);
    wait::until(wait::SOON, "the reload took effect", async || daemon.get_host("a.test", "/").await.text() == "new")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_makes_no_local_ca() {
    let http = "[server]\nenable_https = false\n[backends.\"a.test\"]\nroot = \"{dir}\"\n";
    let daemon = Daemon::start(http).await;
    let https = "enable_https = true\nhttps_port = {port2}\n[ssl]\nissuer = \"local\"";
    daemon.rewrite_config(&http.replace("enable_https = false", https));
    let found = || walk(daemon.dir()).into_iter().filter(|it| it.ends_with("ca.key")).collect::<Vec<_>>();
    assert_eq!(daemon.ctl_json(&["reload", "--dry-run"]).await["result"], "applied");
    assert!(found().is_empty(), "{:?}", found());
    daemon.ctl_ok(&["reload"]).await;
    assert_eq!(found().len(), 1, "the reload itself makes it");
}

/// All files below a directory.
fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|it| it.unwrap().path());
    entries.flat_map(|it| if it.is_dir() { walk(&it) } else { vec![it] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_listener_that_is_gone_are_finished_and_told_to_go() {
    let origin = Origin::start("origin").await;
    let config =
        |port| format!("[server]\nhttp_port = {port}\n{}", site("localhost", &format!("url = \"{}\"", origin.url())));
    let daemon = Daemon::start(&config("{port}")).await;
    let ask = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut idle = TcpStream::connect(daemon.http()).await.unwrap();
    idle.write_all(ask).await.unwrap();
    let mut answer = [0; 64];
    timeout(wait::SOON, idle.read_exact(&mut answer)).await.expect("an answer").unwrap();
    origin.delay(Duration::from_secs(3));
    let mut busy = TcpStream::connect(daemon.http()).await.unwrap();
    busy.write_all(ask).await.unwrap();
    let mut multiplexed = RawH2::connect(daemon.http()).await;
    let get = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/")];
    multiplexed.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&get)).await.unwrap();
    wait::until(wait::SOON, "the origin is asked", async || origin.requests() == 3).await;
    daemon.rewrite_config(&config("{port2}"));
    daemon.ctl_ok(&["reload"]).await;
    let read = async |mut stream: TcpStream| {
        let mut rest = String::new();
        timeout(wait::SOON, stream.read_to_string(&mut rest)).await.expect("it ends").unwrap();
        rest
    };
    assert!(read(idle).await.ends_with("origin"), "an idle connection ends");
    let last = read(busy).await;
    assert!(last.contains("\r\nconnection: close\r\n") && last.ends_with("origin"), "{last}");
    assert_eq!(multiplexed.until(GOAWAY).await.expect("a goodbye").payload[4..8], [0; 4]);
    assert_eq!(multiplexed.until(DATA).await.expect("the answer all the same").payload, b"origin");
    assert_eq!(harness::get(daemon.address(2), "localhost", "/").await.unwrap().text(), "origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_configuration_says_so() {
    let daemon = Daemon::start(&site("a.test", "root = \"{dir}\"")).await;
    assert_eq!(daemon.ctl_json(&["reload"]).await["result"], "unchanged");
}

// 93. A storm of signals is as good as one: what is in the file at the end is what serves.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_sighups_ends_with_the_last_configuration() {
    const STORM: usize = 100;
    let text = |version: usize| site("a.test", &format!("respond = \"version {version}\""));
    let daemon = Daemon::start(&format!("{}{}", managed(&[], ""), text(0))).await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    let load = daemon.load("chaos.test").connections(4).paths(&["/fast"]).start();
    load.flowing(10).await;
    for version in 1..=STORM {
        daemon.replace_config(&format!("{}{}", managed(&[], ""), text(version)));
        daemon.signal(Signal::SIGHUP);
    }
    let last = format!("version {STORM}");
    wait::until(wait::LATER, "the last one serves", async || daemon.get_host("a.test", "/").await.text() == last).await;
    load.flowing(10).await;
    load.stop().await.assert_none_failed();
    assert_eq!(daemon.app_pids("chaos").await, pids);
    assert_eq!(daemon.ctl_json(&["reload"]).await["result"], "unchanged", "nothing is left to do");
}

// 98. An app that is taken out ends what it has begun, and then goes. What it said stays.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_removed_finishes_its_requests_and_leaves_its_log() {
    let (leaving, staying) = (app("leaving", "", &[], ""), app("staying", "", &[], ""));
    let daemon = Daemon::start(&format!("{leaving}{staying}")).await;
    daemon.app_ready("leaving").await;
    daemon.app_ready("staying").await;
    let (gone, kept) = (daemon.app_pids("leaving").await, daemon.app_pids("staying").await);
    daemon.get_host("leaving.test", "/log?text=last-words").await;
    let log = || walk(daemon.dir()).into_iter().find(|it| it.ends_with("leaving.log"));
    let said = || log().and_then(|it| std::fs::read_to_string(it).ok()).unwrap_or_default();
    wait::until(wait::SOON, "it is in the log", async || said().contains("last-words")).await;
    let http = daemon.http();
    let slow = tokio::spawn(async move { harness::get(http, "leaving.test", "/sleep?ms=2000").await });
    daemon.app_where("leaving", "the request is in flight", |it| it["instances"][0]["in_flight"] == 1).await;
    daemon.rewrite_config(&staying);
    daemon.ctl_ok(&["reload"]).await;
    assert_eq!(slow.await.unwrap().expect("an answer").status, 200);
    wait::until(wait::SOON, "its processes are gone", async || gone.iter().all(|it| !harness::exists(*it))).await;
    wait::until(wait::SOON, "it is listed no more", async || daemon.app("leaving").await.is_null()).await;
    assert_ne!(daemon.get_host("leaving.test", "/").await.status, 200);
    assert!(said().contains("last-words"), "its log stays");
    assert_eq!(daemon.app_pids("staying").await, kept);
}

// 99. A listener whose port somebody else has: refused before anything changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_cannot_be_bound_refuses_the_whole_reload() {
    let config = |port: &str, answer: &str| {
        format!("[server]\nhttp_port = {port}\n{}", site("a.test", &format!("respond = \"{answer}\"")))
    };
    let daemon = Daemon::start(&config("{port}", "before")).await;
    let generation = daemon.ctl_json(&["status"]).await["config_generation"].clone();
    let taken = std::net::TcpListener::bind(daemon.address(2)).unwrap();
    daemon.rewrite_config(&config("{port2}", "after"));
    let output = daemon.reload().await;
    assert_eq!(output.status, 6, "{output:?}");
    assert!(output.all().contains(&daemon.address(2).port().to_string()), "the port is named: {output:?}");
    assert_eq!(daemon.get_host("a.test", "/").await.text(), "before");
    assert_eq!(daemon.ctl_json(&["status"]).await["config_generation"], generation);
    drop(taken);
    daemon.ctl_ok(&["reload"]).await;
    assert_eq!(harness::get(daemon.address(2), "a.test", "/").await.unwrap().text(), "after");
}

// 100. A reload that comes during a restart waits for it, and both succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_during_a_restart_comes_after_it() {
    let text = |version: &str| {
        let flags = ["--health-file", "{dir}/health"];
        format!("{}[backends.\"chaos.test\".process.env]\nVERSION = \"{version}\"\n", managed(&flags, ""))
    };
    let daemon = Daemon::builder(&text("v1")).file("health", "200").start().await;
    daemon.app_ready("chaos").await;
    let load = daemon.load("chaos.test").connections(4).paths(&["/fast"]).start();
    load.flowing(10).await;
    // The restart does not end before it may.
    daemon.write("health", "503");
    let mut restart = daemon.ctl_child(&["app", "restart", "chaos"]);
    let both = |app: &Value| app["instances"].as_array().is_some_and(|all| all.len() == 2);
    daemon.app_where("chaos", "the restart is under way", both).await;
    daemon.rewrite_config(&text("v2"));
    let mut reload = daemon.ctl_child(&["reload"]);
    wait::until(wait::SOON, "the configuration is taken", async || {
        daemon.ctl_json(&["status"]).await["config_generation"] == 2
    })
    .await;
    assert!(reload.try_wait().unwrap().is_none(), "the reload waits for its app");
    daemon.write("health", "200");
    assert!(restart.wait().await.unwrap().success());
    assert!(reload.wait().await.unwrap().success());
    let version = async || daemon.get_host("chaos.test", "/env").await.json()["VERSION"] == "v2";
    wait::until(wait::LATER, "the new version answers", version).await;
    load.stop().await.assert_none_failed();
}
