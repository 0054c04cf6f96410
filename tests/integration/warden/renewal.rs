//! The warden itself becomes the new program: nobody below it or above it notices.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use harness::{Builder, Daemon, FakeNotify, miwid, skip, wait};
use nix::sys::signal::Signal;

use super::{account, engines, kill_engine, start};
use crate::lifecycle::managed;

fn program(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).expect("a process")
}

fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("a process").count()
}

/// As soon as those of an engine that has left are closed.
async fn holds(daemon: &Daemon, count: usize) {
    wait::for_value(wait::LATER, "what the warden holds", async || descriptors(daemon), |it| *it == count).await;
}

/// Upgrades to a copy of the program under this name, and waits until only its engine is left.
async fn upgrade(daemon: &Daemon, name: &str) -> PathBuf {
    let copy = daemon.dir().join(name);
    fs::copy(miwid(), &copy).expect("a copy");
    daemon.ctl_ok(&["upgrade", "--binary", &format!("{{dir}}/{name}")]).await;
    wait::until(wait::LATER, "the old engine has left", async || engines(daemon).len() == 1).await;
    copy
}

/// The warden is this program, and it is the `times`-th one that says so.
async fn becomes(daemon: &Daemon, copy: &Path, times: usize) {
    wait::until(wait::LATER, "the warden is the new program", async || {
        program(daemon.pid()) == copy && daemon.log().matches("this program is the warden now").count() == times
    })
    .await;
}

/// What every upgrade ends with, the first start included; then the warden holds what it will hold.
async fn has_lasted(daemon: &Daemon, times: usize) {
    wait::until(wait::LATER, "what is served has proved itself", async || {
        daemon.log().matches("the configuration has lasted").count() == times
    })
    .await;
}

fn quick(config: &str) -> Builder {
    Daemon::builder(config).warden().env("MIWID_TEST_CONFIRM_MS", "300")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_of_engines_goes_along_and_only_roots_programs_are_upgraded_to() {
    if !harness::skip::is_root() {
        skip!("needs root");
    }
    let daemon = account::builder("", &managed(&[], "")).start().await;
    daemon.app_ready("chaos").await;
    let foreign = daemon.dir().join("foreign");
    fs::copy(miwid(), &foreign).expect("a copy");
    std::os::unix::fs::chown(&foreign, Some(1), None).expect("given away");
    let refused = daemon.ctl(&["upgrade", "--binary", "{dir}/foreign"]).await;
    assert!(refused.status == 6 && refused.all().contains("is not root's alone to write"), "{refused:?}");

    let second = upgrade(&daemon, "second").await;
    becomes(&daemon, &second, 1).await;
    account::assert_engine_is_nobody(&daemon);
    kill_engine(&daemon).await;
    account::assert_engine_is_nobody(&daemon);
    daemon.ctl_ok(&["app", "restart", "chaos"]).await;
    account::assert_app_is_nobody(&daemon).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_apps_keep_their_processes_and_their_ends_are_known() {
    const COUNT: usize = 50;
    let builder = quick(&managed(&[], &format!("instances = {COUNT}")));
    let mut notify = FakeNotify::bind(builder.dir()).unwrap();
    let socket = notify.path().to_owned();
    let daemon = builder.env("NOTIFY_SOCKET", socket).start().await;
    daemon.app_ready("chaos").await;
    let pids = daemon.app_pids("chaos").await;
    assert_eq!(pids.len(), COUNT);
    let stored = notify.stored();
    let mut tunnel = daemon.websocket("chaos.test", "/ws").await;
    tunnel.echo("before").await;
    let load = daemon.load("chaos.test").connections(4).start();
    load.flowing(20).await;
    has_lasted(&daemon, 1).await;
    // From then on also the program of before, and the configuration that was good with it.
    let held = descriptors(&daemon) + 2;
    daemon.ctl_ok(&["upgrade"]).await;
    drop(tunnel);
    wait::until(wait::LATER, "the old engine has left", async || engines(&daemon).len() == 1).await;
    has_lasted(&daemon, 2).await;
    holds(&daemon, held).await;

    let second = upgrade(&daemon, "second").await;
    becomes(&daemon, &second, 1).await;
    has_lasted(&daemon, 3).await;
    holds(&daemon, held).await;
    let third = upgrade(&daemon, "third").await;
    becomes(&daemon, &third, 2).await;
    has_lasted(&daemon, 4).await;
    holds(&daemon, held).await;
    load.flowing(20).await;
    load.stop().await.assert_none_failed();
    assert_eq!(daemon.app_pids("chaos").await, pids);
    assert_eq!(daemon.ctl_json(&["status"]).await["pid"], daemon.pid());
    assert_eq!(notify.stored(), stored);

    kill_engine(&daemon).await;
    assert_eq!(daemon.app_pids("chaos").await, pids, "it still has their output and the sockets");
    assert_eq!(program(*engines(&daemon).last().expect("an engine")), third);
    for pid in &pids {
        daemon.signal_pid(*pid, Signal::SIGUSR2);
    }
    let all = |app: &serde_json::Value| app["restarts"] == COUNT && app["ready"] == COUNT;
    let app = daemon.app_where("chaos", "every end was seen", all).await;
    let instances = app["instances"].as_array().expect("instances");
    assert!(instances.iter().all(|it| it["last_exit"].to_string().contains("SIGUSR2")), "{app:#}");
    // Room for what is said at the end.
    notify.seen();
    assert!(daemon.stop().await.success());
    notify.expect("STOPPING=1", wait::SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_be_the_warden_gives_everything_back() {
    let daemon = quick(&managed(&[], "instances = 2")).env("MIWID_TEST_RESUME_FAILS", "1").start().await;
    daemon.app_ready("chaos").await;
    let (pids, own) = (daemon.app_pids("chaos").await, program(daemon.pid()));
    let load = daemon.load("chaos.test").connections(4).start();
    load.flowing(20).await;
    let second = upgrade(&daemon, "second").await;
    wait::until(wait::LATER, "it came back", async || daemon.log().contains("this program is the warden again")).await;
    assert!(daemon.log().contains("this program cannot go on as the warden"));
    assert_eq!((program(daemon.pid()), program(engines(&daemon)[0])), (own, second), "the engine is the new one");
    load.flowing(20).await;
    load.stop().await.assert_none_failed();
    assert_eq!(daemon.app_pids("chaos").await, pids);
    daemon.signal_pid(pids[0], Signal::SIGKILL);
    daemon.app_where("chaos", "it is started again", |it| it["restarts"] == 1 && it["ready"] == 2).await;
    kill_engine(&daemon).await;
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_of_an_engine_that_has_handed_over_are_left_alone() {
    if std::env::var_os("CI").is_none() && std::env::var_os("MIWI_SLOW").is_none() {
        skip!("it waits for longer than an engine may be silent: set MIWI_SLOW=1");
    }
    let daemon = start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let mut tunnel = daemon.websocket("chaos.test", "/ws").await;
    tunnel.echo("before").await;
    daemon.ctl_ok(&["upgrade"]).await;
    let since = Instant::now();
    wait::until(Duration::from_secs(60), "half a minute is over", async || since.elapsed() > Duration::from_secs(36))
        .await;
    tunnel.echo("after").await;
    assert_eq!(engines(&daemon).len(), 2);
    assert!(!daemon.log().contains("has not moved"));
}
