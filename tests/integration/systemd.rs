//! The service manager's side: readiness, status, watchdog, the unit file, signals.

use std::{fs, process::Command};

use harness::{Daemon, FakeNotify, get, miwictl, miwid, repository, wait};
use nix::sys::signal::Signal;

use crate::lifecycle::managed;

#[tokio::test(flavor = "multi_thread")]
async fn readiness_status_and_the_end_are_told() {
    let builder = Daemon::builder(&managed(&[], ""));
    let mut notify = FakeNotify::bind(builder.dir()).unwrap();
    let socket = notify.path().to_owned();
    let daemon = builder.env("NOTIFY_SOCKET", socket).start().await;
    notify.expect("READY=1", wait::LATER).await;
    notify.expect("STATUS=", wait::LATER).await;
    daemon.app_ready("chaos").await;
    let env = daemon.get_host("chaos.test", "/env").await.json();
    assert!(env.get("NOTIFY_SOCKET").is_none(), "an app must not speak for the daemon");
    assert!(daemon.stop().await.success());
    notify.expect("STOPPING=1", wait::SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broken_app_does_not_keep_the_daemon_from_being_ready() {
    let builder = Daemon::builder(&managed(&["--exit-code", "1"], ""));
    let mut notify = FakeNotify::bind(builder.dir()).unwrap();
    let socket = notify.path().to_owned();
    let daemon = builder.env("NOTIFY_SOCKET", socket).start().await;
    notify.expect("READY=1", wait::LATER).await;
    daemon.app_in_state("chaos", "crash-loop").await;
    wait::until(wait::LATER, "the status names it", || {
        std::future::ready(notify.seen().iter().any(|it| it.starts_with("STATUS=") && it.contains("chaos")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed() {
    let builder = Daemon::builder("");
    let mut notify = FakeNotify::bind(builder.dir()).unwrap();
    let socket = notify.path().to_owned();
    let _daemon = builder.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "1000000").start().await;
    notify.expect_times("WATCHDOG=1", 3, wait::LATER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn term_drains_and_a_second_one_does_not_wait() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let http = daemon.http();
    let slow = tokio::spawn(async move { get(http, "chaos.test", "/sleep?ms=2000").await });
    daemon.app_where("chaos", "the request is in flight", |it| it["instances"][0]["in_flight"] == 1).await;
    assert!(daemon.stop().await.success());
    assert_eq!(slow.await.unwrap().expect("an answer").status, 200, "the open request is finished");

    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let http = daemon.http();
    let endless = tokio::spawn(async move { get(http, "chaos.test", "/sleep?ms=600000").await });
    daemon.app_where("chaos", "the request is in flight", |it| it["instances"][0]["in_flight"] == 1).await;
    daemon.signal(Signal::SIGTERM);
    wait::until(wait::SOON, "it drains", async || tokio::net::TcpStream::connect(http).await.is_err()).await;
    daemon.signal(Signal::SIGTERM);
    daemon.ended(wait::LATER).await;
    endless.abort();
}

// 91. An app that does not hear does not keep the daemon, and is not left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_with_an_app_that_hangs_ends_and_leaves_nothing() {
    let wish = "stop_timeout = \"1s\"\ndrain_timeout = \"1s\"";
    let app = managed(&["--ignore-term", "--fork-holder"], wish);
    let daemon = Daemon::builder(&format!("[server]\nshutdown_timeout = \"2s\"\n{app}")).warden().start().await;
    daemon.app_ready("chaos").await;
    let http = daemon.http();
    let hung = tokio::spawn(async move { get(http, "chaos.test", "/sleep?ms=600000").await });
    daemon.app_where("chaos", "the request is in flight", |it| it["instances"][0]["in_flight"] == 1).await;
    let below: Vec<u32> = harness::descendants(daemon.pid()).iter().map(|it| it.pid).collect();
    // The harness waits for as long as the unit lets it take.
    assert!(daemon.stop().await.success());
    assert!(below.iter().all(|pid| !harness::exists(*pid)), "nothing is left");
    let _ = hung.await;
}

#[test]
fn the_unit_is_valid() {
    let unit = fs::read_to_string(repository().join("packaging/systemd/miwid.service")).unwrap();
    assert!(unit.contains("Type=notify") && unit.contains("ExecReload=/usr/bin/miwictl reload"));
    assert!(unit.contains("\nFileDescriptorStoreMax=512\n"), "listeners would be thrown away");
    // Verified with the binaries where they are built; manual pages come with a package.
    let unit: String = unit
        .lines()
        .filter(|line| !line.starts_with("Documentation="))
        .map(|line| format!("{line}\n"))
        .collect::<String>()
        .replace("/usr/bin/miwid ", &format!("{} ", miwid().display()))
        .replace("/usr/bin/miwictl ", &format!("{} ", miwictl().display()));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("miwid.service");
    fs::write(&file, unit).unwrap();
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&file).output() else {
        harness::skip!("systemd-analyze is not installed");
    };
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = complaints.lines().filter(|it| it.contains("miwid.service")).collect();
    assert!(ours.is_empty(), "{complaints}");
}

// Accounts of apps and members of the group must get to their sockets, and apps to their releases.
#[test]
fn the_places_are_open_to_who_passes_through_and_not_taken_back() {
    let read = |name: &str| fs::read_to_string(repository().join("packaging/systemd").join(name)).unwrap();
    let (unit, places) = (read("miwid.service"), read("miwid.tmpfiles"));
    // systemd would take them back from the account of `[server] user` with every reload.
    for key in ["RuntimeDirectory", "StateDirectory", "LogsDirectory"] {
        assert!(!unit.lines().any(|it| it.starts_with(key)), "{key}");
    }
    for place in ["/run/miwid", "/var/lib/miwid"] {
        let line =
            places.lines().map(|it| it.split_whitespace().collect::<Vec<_>>()).find(|it| it.get(1) == Some(&place));
        assert_eq!(line.unwrap()[2], "0711", "{place}");
    }
}

#[test]
fn the_unit_takes_away_what_it_can() {
    let unit = repository().join("packaging/systemd/miwid.service");
    // In tenths; what apps need (see the unit's head) is most of what is left, and three are for CAP_SYS_PTRACE.
    let judged =
        Command::new("systemd-analyze").args(["security", "--offline=yes", "--threshold=77"]).arg(&unit).output();
    let Ok(output) = judged else {
        harness::skip!("systemd-analyze is not installed");
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("Unknown") || said.contains("unrecognized option") {
        harness::skip!("this systemd-analyze does not judge files");
    }
    assert!(output.status.success() && said.contains("Overall exposure level"), "{said}");
}
