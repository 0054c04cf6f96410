//! B. Leaving: restarts, backoff, and what is remembered of an end.

use harness::{Daemon, wait};
use nix::sys::signal::Signal;

use super::{app, managed, other};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_app_is_back_and_the_next_request_does_not_fail() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let first = daemon.app_pids("chaos").await[0];
    daemon.signal_pid(first, Signal::SIGKILL);
    daemon
        .app_where("chaos", "a new process is ready", |it| {
            it["state"] == "running" && it["instances"][0]["pid"] != first
        })
        .await;
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200);
    assert_eq!(daemon.app("chaos").await["restarts"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_one_slot_leaves_the_other_serving() {
    let daemon = Daemon::start(&managed(&[], "instances = 2")).await;
    daemon.app_ready("chaos").await;
    let load = daemon.load("chaos.test").connections(4).paths(&["/fast"]).start();
    load.flowing(20).await;
    let victim = daemon.app_pids("chaos").await[0];
    daemon.signal_pid(victim, Signal::SIGKILL);
    daemon.app_where("chaos", "both are ready again", |it| it["ready"] == 2 && it["restarts"] == 1).await;
    load.flowing(20).await;
    let result = load.stop().await;
    assert!(result.failed <= 4, "only what was in flight may be lost: {result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_backs_off_and_says_so() {
    let daemon = Daemon::start(&managed(&["--no-listen", "--exit-after", "100", "--exit-code", "3"], "")).await;
    let app = daemon.app_in_state("chaos", "crash-loop").await;
    assert!(app["reason"].as_str().is_some_and(|it| !it.is_empty()), "{app}");
    daemon.told_any("chaos", &["code 3", "exit 3"]).await;
    let events = daemon.ctl_ok(&["events"]).await;
    assert!(events.stdout.contains("chaos"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_configuration_ends_a_backoff_at_once() {
    let daemon = Daemon::start(&managed(&["--exit-code", "1"], "")).await;
    daemon.app_in_state("chaos", "crash-loop").await;
    daemon.rewrite_config(&managed(&[], ""));
    let output = daemon.reload().await;
    assert_eq!(output.status, 0, "{output:?}");
    daemon.app_ready("chaos").await;
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_with_0_is_completion_or_a_restart_as_configured() {
    let once = app("once", "", &["--pid-file", "{dir}/once"], "auto_restart = \"on-failure\"");
    let always = app("always", "", &["--pid-file", "{dir}/always"], "auto_restart = true");
    let daemon = Daemon::start(&format!("{once}{always}")).await;
    for name in ["once", "always"] {
        daemon.app_ready(name).await;
        let _ = harness::get(daemon.http(), &format!("{name}.test"), "/exit?code=0").await;
    }
    daemon.app_in_state("once", "stopped").await;
    wait::until(wait::LATER, "the other one is started again", async || daemon.read("always").lines().count() >= 2)
        .await;
    daemon.app_ready("always").await;
    assert_eq!(daemon.read("once").lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signal_that_ended_an_app_is_recorded_by_name() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let _ = harness::get(daemon.http(), "chaos.test", "/segv").await;
    daemon.told_any("chaos", &["SIGSEGV"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_exit_code_is_tried_again_when_a_file_changes() {
    let script = "#!/bin/sh\necho x >> {dir}/starts\nif [ -e {dir}/fixed ]; then exec {chaos}; fi\nexit 78\n";
    let config = other("chaos", "", "command = \"{dir}/app.sh\"\nfatal_exit_codes = [78]");
    let daemon = Daemon::builder(&config).script("app.sh", script).start().await;
    daemon.told_any("chaos", &["78"]).await;
    let app = daemon.app("chaos").await;
    assert!(app["state"] == "failed" || app["state"] == "crash-loop", "{app}");
    assert_eq!(daemon.read("starts").lines().count(), 1, "no quick attempts after a fatal code");
    daemon.write("fixed", "");
    // A new time stamp on the command is the change that is watched for.
    daemon.write("app.sh", &format!("{script}# changed\n"));
    daemon.app_ready("chaos").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_a_backoff_takes_effect_at_once() {
    let daemon = Daemon::start(&managed(&["--exit-code", "1", "--pid-file", "{dir}/starts"], "")).await;
    daemon.app_in_state("chaos", "crash-loop").await;
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    let app = daemon.app("chaos").await;
    assert_eq!(app["state"], "stopped");
    assert_eq!(app["desired"], 0);
    let starts = daemon.read("starts");
    let output = daemon.ctl(&["app", "status", "chaos"]).await;
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(daemon.read("starts"), starts, "its timer is gone");
}
