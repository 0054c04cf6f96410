//! The warden and its engines: what outlives an engine, and what an upgrade leaves alone.

mod account;
mod callers;
mod fallback;
mod fitness;
mod renewal;
mod sessions;
mod store;

use std::{net::SocketAddr, time::Duration};

use harness::{Daemon, FakeNotify, Origin, Received, descendants, exists, get, miwid, skip, wait};
use nix::sys::signal::Signal;
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};

use crate::lifecycle::{fixed, managed, other};

const ENGINE: &str = "miwid-engine";

/// With a window in which an upgrade proves itself that is over soon.
async fn start(config: &str) -> Daemon {
    start_with(config, "300").await
}

async fn start_with(config: &str, confirm_ms: &str) -> Daemon {
    Daemon::builder(config).warden().env("MIWID_TEST_CONFIRM_MS", confirm_ms).start().await
}

/// The engines below the warden, oldest first.
fn engines(daemon: &Daemon) -> Vec<u32> {
    let below = descendants(daemon.pid());
    let mut engines: Vec<u32> = below.iter().filter(|it| it.command == ENGINE).map(|it| it.pid).collect();
    engines.sort_unstable();
    engines
}

async fn generation(daemon: &Daemon) -> u64 {
    daemon.ctl_json(&["status"]).await["engine_generation"].as_u64().unwrap_or_default()
}

async fn is_generation(daemon: &Daemon, wanted: u64) {
    wait::for_value(wait::LATER, "the engine serves", || generation(daemon), |it| *it == wanted).await;
}

/// Kills the engine that serves and waits for the next one.
async fn kill_engine(daemon: &Daemon) {
    let before = generation(daemon).await;
    let engine = *engines(daemon).last().expect("an engine");
    daemon.signal_pid(engine, Signal::SIGKILL);
    is_generation(daemon, before + 1).await;
}

/// Opens connections without a pause; ends with how many there were and why one was refused.
struct Knocking {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<usize, String>>,
}

impl Knocking {
    fn start(address: SocketAddr) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                TcpStream::connect(address).await.map_err(|error| error.to_string())?;
                count += 1;
                tokio::task::yield_now().await;
            }
            Ok(count)
        });
        Self { stop, task }
    }

    async fn assert_never_refused(self) {
        self.stop.send_replace(true);
        let count = self.task.await.expect("no panic").expect("every connection is taken");
        assert!(count > 100, "only {count} connections were tried");
    }
}

/// How often; more by hand: `MIWI_KILLS=20`.
fn kills() -> usize {
    std::env::var("MIWI_KILLS").ok().and_then(|it| it.parse().ok()).unwrap_or(4)
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_are_killed_under_load_and_neither_apps_nor_connections_notice() {
    let daemon = start(&managed(&[], "instances = 2")).await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    let knocking = Knocking::start(daemon.http());
    let load = daemon.load("chaos.test").connections(4).start();
    for _ in 0..kills() {
        load.flowing(20).await;
        kill_engine(&daemon).await;
    }
    load.flowing(20).await;
    knocking.assert_never_refused().await;
    let result = load.stop().await;
    // What was under way at a kill is lost with its connection; nothing else is.
    assert!(result.failed <= 4 * kills(), "{result:#?}");
    assert!(result.failures.iter().all(|(kind, _)| !kind.starts_with(char::is_numeric)), "{result:#?}");
    assert_eq!(daemon.app_pids("chaos").await, pids);
    assert_eq!(daemon.app("chaos").await["restarts"], 0);
    println!("{} kills, {} requests, {} lost", kills(), result.sent, result.failed);
    assert!(daemon.stop().await.success());
    assert!(pids.iter().all(|pid| !exists(*pid)), "the apps end with the daemon");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_has_said_once_counts_with_the_next_engine() {
    let probe = "{ log = \"warm now\", interval = \"100ms\", failures = 1 }";
    let process = format!(
        "command = \"{{dir}}/app.sh\"\n\n[backends.\"chaos.test\".process.probes]\nstartup = {probe}\nreadiness = {probe}"
    );
    let script = "#!/bin/sh\necho it is warm now\nexec {chaos}\n";
    let daemon = Daemon::builder(&other("chaos", "", &process)).script("app.sh", script).warden().start().await;
    daemon.app_ready("chaos").await;
    kill_engine(&daemon).await;
    is_generation(&daemon, 2).await;
    // For as long as this takes, it is looked at again and again.
    assert_eq!(daemon.get_host("chaos.test", "/sleep?ms=2000").await.status, 200);
    let events = daemon.ctl_ok(&["events"]).await.stdout;
    assert!(events.contains("app.adopted") && !events.contains("app.unready"), "{events}");
    assert_eq!(daemon.app("chaos").await["state"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_under_load_fails_no_request_and_keeps_every_app_and_tunnel() {
    let daemon = start(&managed(&[], "instances = 2")).await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    let warden = daemon.pid();
    let mut tunnel = daemon.websocket("chaos.test", "/ws").await;
    let load = daemon.load("chaos.test").paths(&["/", "/sleep?ms=50"]).connections(8).start();
    let (stop, stopped) = watch::channel(false);
    let http2 = tokio::spawn(h2_load(daemon.http(), stopped));
    let knocking = Knocking::start(daemon.http());
    for generation in 2..=3 {
        load.flowing(100).await;
        let said = daemon.ctl_ok(&["upgrade"]).await;
        assert!(said.stdout.contains(&format!("engine {generation} serves")), "{said:?}");
        is_generation(&daemon, generation).await;
        tunnel.echo("still the same tunnel").await;
    }
    load.flowing(100).await;
    knocking.assert_never_refused().await;
    load.stop().await.assert_none_failed();
    stop.send_replace(true);
    assert!(http2.await.expect("no panic") > 100);
    assert_eq!((daemon.app_pids("chaos").await, daemon.pid()), (pids, warden));
    assert_eq!(daemon.app("chaos").await["restarts"], 0);
    // An engine that has handed over ends as soon as its last tunnel has.
    drop(tunnel);
    wait::until(wait::LATER, "one engine is left", async || engines(&daemon).len() == 1).await;
    assert!(daemon.stop().await.success());
}

/// Requests over HTTP/2, a fresh connection whenever the server says GOAWAY; panics when one fails.
async fn h2_load(address: SocketAddr, stopped: watch::Receiver<bool>) -> usize {
    let mut done = 0;
    while !*stopped.borrow() {
        let stream = TcpStream::connect(address).await.expect("connects");
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.expect("a handshake");
        tokio::spawn(connection);
        while !*stopped.borrow() && sender.ready().await.is_ok() {
            let request = http::Request::get("http://chaos.test/sleep?ms=5")
                .body(http_body_util::Empty::<bytes::Bytes>::new())
                .expect("a request");
            match sender.send_request(request).await {
                Ok(answer) => assert_eq!(answer.status(), 200),
                // Refused before anything was done with it (RFC 9113, 8.7): every client sends it again.
                Err(error) if error.is_canceled() || refused(&error) => break,
                Err(error) => panic!("HTTP/2 request failed: {error:?}"),
            }
            done += 1;
        }
    }
    done
}

fn refused(error: &hyper::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if cause
            .downcast_ref::<h2::Error>()
            .is_some_and(|it| it.is_go_away() || it.reason() == Some(h2::Reason::REFUSED_STREAM))
        {
            return true;
        }
        source = cause.source();
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_take_over_is_refused_with_the_reason_and_the_old_engine_serves_on() {
    // A program that speaks well of itself and cannot be an engine.
    let pretender =
        format!("#!/bin/sh\ncase \"$1\" in\nhandshake|check) exec {} \"$@\" ;;\nesac\nexit 3\n", miwid().display());
    let daemon = Daemon::builder(&managed(&[], ""))
        .warden()
        .script("pretender", &pretender)
        .script("mute", "#!/bin/sh\nexit 0\n")
        .script("broken", "#!/bin/sh\necho 'cannot load libmagic.so' >&2\nexit 127\n")
        .file("no-program", "just a text\n")
        .start()
        .await;
    daemon.app_ready("chaos").await;
    let (pids, engine) = (daemon.app_pids("chaos").await, engines(&daemon));
    let load = daemon.load("chaos.test").connections(4).start();
    for (name, reason) in [
        ("missing", "No such file or directory"),
        ("no-program", "Permission denied"),
        ("mute", "is not a miwid that can take over"),
        ("broken", "cannot load libmagic.so"),
        ("pretender", "before it was ready"),
    ] {
        load.flowing(20).await;
        let said = daemon.ctl(&["upgrade", "--binary", &format!("{{dir}}/{name}")]).await;
        assert_eq!(said.status, 6, "{name}: {said:?}");
        assert!(said.stderr.contains(reason) && said.stderr.contains("hint: "), "{name}: {said:?}");
    }
    daemon.write("miwid.toml", "[server]\nhttp_port = \"none\"\n");
    let said = daemon.ctl(&["upgrade"]).await;
    assert_eq!(said.status, 6, "{said:?}");
    assert!(said.stderr.contains("miwid.toml:2"), "the configuration is told about, with its line: {said:?}");
    load.flowing(20).await;
    load.stop().await.assert_none_failed();
    assert_eq!((daemon.app_pids("chaos").await, engines(&daemon)), (pids, engine));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_while_it_proves_itself_gives_everything_back() {
    let daemon = start_with(&managed(&[], ""), "60000").await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    let old = engines(&daemon);
    let knocking = Knocking::start(daemon.http());
    let upgrade = daemon.ctl_child(&["upgrade"]);
    is_generation(&daemon, 2).await;
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200, "the new one serves");
    let second = daemon.ctl(&["upgrade"]).await;
    assert_eq!(second.status, 8, "one at a time: {second:?}");
    let new = engines(&daemon).into_iter().find(|it| !old.contains(it)).expect("a second engine");
    daemon.signal_pid(new, Signal::SIGKILL);
    is_generation(&daemon, 1).await;
    let said = upgrade.wait_with_output().await.expect("it ends");
    assert_eq!(said.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&said.stderr).contains("engine 1 has resumed"), "{said:?}");
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200);
    knocking.assert_never_refused().await;
    assert_eq!((daemon.app_pids("chaos").await, engines(&daemon)), (pids.clone(), old));
    // It has the apps again, and looks after them.
    daemon.signal_pid(pids[0], Signal::SIGKILL);
    daemon.app_where("chaos", "it is started again", |it| it["restarts"] == 1 && it["ready"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_ends_while_nobody_looks_is_started_by_the_next_engine() {
    let daemon = start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let pid = daemon.app_pids("chaos").await[0];
    let engine = engines(&daemon)[0];
    daemon.signal_pid(engine, Signal::SIGKILL);
    daemon.signal_pid(pid, Signal::SIGUSR2);
    let app = daemon.app_where("chaos", "it runs again", |it| it["ready"] == 1 && it["restarts"] == 1).await;
    assert_ne!(app["instances"][0]["pid"], pid);
    let ended = app["instances"][0]["last_exit"].to_string();
    assert!(ended.contains("SIGUSR2"), "how it ended is known: {ended}");
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_address_a_stop_and_a_scale_survive_an_engine() {
    let config = format!("{}{}", fixed(&[], ""), crate::lifecycle::app("other", "", &[], ""));
    let daemon = start(&config).await;
    daemon.app_ready("chaos").await;
    daemon.app_ready("other").await;
    daemon.ctl_ok(&["app", "scale", "other", "3"]).await;
    daemon.ctl_ok(&["app", "pause", "chaos"]).await;
    let (fixed, scaled) = (daemon.app_pids("chaos").await, daemon.app_pids("other").await);
    kill_engine(&daemon).await;
    let paused = daemon.app_where("chaos", "it is known", |it| it["state"] == "paused").await;
    assert_eq!(paused["instances"][0]["pid"], fixed[0]);
    daemon.ctl_ok(&["app", "resume", "chaos"]).await;
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200);
    assert_eq!(daemon.app_ready("other").await["desired"], 3);
    assert_eq!((daemon.app_pids("chaos").await, daemon.app_pids("other").await), (fixed.clone(), scaled));
    // Operators go on as if nothing had been.
    daemon.ctl_ok(&["app", "restart", "chaos"]).await;
    assert_ne!(daemon.app_pids("chaos").await, fixed);
    daemon.ctl_ok(&["app", "stop", "other"]).await;
    kill_engine(&daemon).await;
    daemon.app_in_state("other", "stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_changed_meanwhile_is_rolled_out_by_the_next_engine() {
    let with = |value: &str| managed(&[], &format!("env = {{ COLOUR = \"{value}\" }}"));
    let gone = crate::lifecycle::app("gone", "", &[], "");
    let daemon = start(&format!("{}{gone}", with("red"))).await;
    daemon.app_ready("chaos").await;
    daemon.app_ready("gone").await;
    let (before, orphan) = (daemon.app_pids("chaos").await, daemon.app_pids("gone").await[0]);
    daemon.rewrite_config(&with("blue"));
    let load = daemon.load("chaos.test").connections(2).start();
    load.flowing(10).await;
    kill_engine(&daemon).await;
    daemon.app_where("chaos", "the new plan runs", |it| it["generation"] == 2 && it["state"] == "running").await;
    assert_ne!(daemon.app_pids("chaos").await, before);
    assert_eq!(daemon.get_host("chaos.test", "/env").await.json()["COLOUR"], "blue");
    wait::until(wait::LATER, "what is no longer configured ends", async || !exists(orphan)).await;
    let result = load.stop().await;
    assert!(result.failed <= 2, "only what was under way at the kill: {result:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_configuration_is_broken_the_apps_run_on_and_it_is_tried_again() {
    let config = managed(&[], "");
    let daemon = start(&config).await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    daemon.write("miwid.toml", "[server]\nhttp_port = \"none\"\n");
    daemon.signal_pid(engines(&daemon)[0], Signal::SIGKILL);
    wait::until(wait::LATER, "the next one cannot begin", async || daemon.log().contains("engine 2 (pid")).await;
    assert!(pids.iter().all(|pid| exists(*pid)));
    daemon.rewrite_config(&config);
    wait::for_value(wait::LATER, "one serves", || generation(&daemon), |it| *it > 2).await;
    assert_eq!(daemon.app_ready("chaos").await["restarts"], 0);
    assert_eq!(daemon.app_pids("chaos").await, pids);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_an_app_is_read_on_by_the_next_engine() {
    let daemon = start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let lines = |text: &str| format!("/log?text={text}");
    assert_eq!(daemon.get_host("chaos.test", &lines("first")).await.status, 200);
    kill_engine(&daemon).await;
    assert_eq!(daemon.get_host("chaos.test", &lines("second")).await.status, 200);
    daemon.ctl_ok(&["upgrade"]).await;
    assert_eq!(daemon.get_host("chaos.test", &lines("third")).await.status, 200);
    wait::until(wait::LATER, "everything is in its log", async || {
        let log = daemon.read("chaos.log");
        ["first", "second", "third"].iter().all(|it| log.contains(it))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user_signals_reach_the_engine_and_usr2_upgrades() {
    let daemon = start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    daemon.signal(Signal::SIGHUP);
    wait::until(wait::LATER, "it reloads", async || daemon.log().contains("result=\"unchanged\"")).await;
    daemon.signal(Signal::SIGUSR2);
    is_generation(&daemon, 2).await;
    wait::until(wait::LATER, "it is confirmed", async || engines(&daemon).len() == 1).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_warden_leaves_nothing_behind() {
    let daemon = start(&managed(&[], "instances = 2")).await;
    daemon.app_ready("chaos").await;
    let below: Vec<u32> = descendants(daemon.pid()).iter().map(|it| it.pid).collect();
    assert!(below.len() >= 3, "{below:?}");
    daemon.signal(Signal::SIGKILL);
    wait::until(wait::LATER, "all have ended", async || below.iter().all(|pid| !exists(*pid))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_at_the_end_takes_its_apps_along() {
    let daemon = start(&managed(&["--ignore-term"], "stop_timeout = \"60s\"")).await;
    daemon.app_ready("chaos").await;
    let below: Vec<u32> = descendants(daemon.pid()).iter().map(|it| it.pid).collect();
    daemon.signal(Signal::SIGTERM);
    wait::until(wait::LATER, "it stops", async || daemon.log().contains("stopping")).await;
    daemon.signal_pid(engines(&daemon)[0], Signal::SIGKILL);
    let ended = daemon.ended(wait::LATER).await;
    assert_eq!(ended.code, Some(1));
    assert!(below.iter().all(|pid| !exists(*pid)), "nothing stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_of_one_process_that_never_changes() {
    let builder = Daemon::builder(&managed(&[], "")).warden().env("MIWID_TEST_CONFIRM_MS", "300");
    let mut notify = FakeNotify::bind(builder.dir()).unwrap();
    let socket = notify.path().to_owned();
    // Nobody reads the socket while something is asked for: a manager that is slow stops nothing.
    let daemon = builder.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "1000000").start().await;
    notify.expect("READY=1", wait::LATER).await;
    daemon.app_ready("chaos").await;
    kill_engine(&daemon).await;
    daemon.ctl_ok(&["upgrade"]).await;
    let fed = notify.seen().iter().filter(|it| *it == "WATCHDOG=1").count();
    notify.expect_times("WATCHDOG=1", fed + 3, wait::LATER).await;
    notify.expect("STATUS=ready, 1/1 apps up", wait::LATER).await;
    let env = daemon.get_host("chaos.test", "/env").await.json();
    assert!(env.get("NOTIFY_SOCKET").is_none(), "an app must not speak for the daemon");
    assert!(!notify.seen().iter().any(|it| it == "STOPPING=1"), "engines come and go unheard");
    assert_eq!(daemon.ctl_json(&["status"]).await["pid"], daemon.pid());
    assert!(daemon.stop().await.success());
    notify.expect("STOPPING=1", wait::SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_is_replaced() {
    if std::env::var_os("CI").is_none() && std::env::var_os("MIWI_SLOW").is_none() {
        skip!("it waits for half a minute: set MIWI_SLOW=1");
    }
    let daemon = start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    daemon.signal_pid(engines(&daemon)[0], Signal::SIGSTOP);
    wait::until(wait::LATER, "it is found out", async || daemon.log().contains("has not moved")).await;
    is_generation(&daemon, 2).await;
    assert_eq!(daemon.app_pids("chaos").await, pids);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_warden_an_upgrade_is_refused_with_the_remedy() {
    if std::env::var_os("MIWI_WARDEN").is_some() {
        skip!("every daemon of this run has a warden");
    }
    let daemon = Daemon::start(&managed(&[], "")).await;
    let said = daemon.ctl(&["upgrade"]).await;
    assert_eq!(said.status, 8, "{said:?}");
    assert!(said.stderr.contains("start it without --single-process"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_of_the_old_engine_are_told_to_go_when_the_daemon_stops() {
    let origin = Origin::start("origin").await;
    let config = format!("{}[backends.\"o.test\"]\nurl = \"{}\"\n", managed(&[], ""), origin.url());
    let daemon = start(&config).await;
    daemon.app_ready("chaos").await;
    let mut tunnel = daemon.websocket("chaos.test", "/ws").await;
    tunnel.echo("before").await;
    daemon.ctl_ok(&["upgrade"]).await;
    tunnel.echo("after").await;
    assert_eq!(get(daemon.http(), "o.test", "/").await.unwrap().text(), "origin");
    assert!(daemon.stop().await.success());
    assert_eq!(tunnel.receive_within(Duration::from_secs(20)).await, Received::Closed(1012));
}
