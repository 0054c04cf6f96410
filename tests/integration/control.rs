//! The control plane: the socket, the command line, exit codes, JSON, operations.

use std::{
    os::unix::{fs::PermissionsExt, net::UnixListener},
    process::Stdio,
    time::Duration,
};

use harness::{Daemon, Output, miwictl, miwid, skip, wait};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::process::Command;

use crate::lifecycle::{app, managed};

/// A `miwictl` without a daemon of its own.
async fn offline(args: &[&str]) -> Output {
    let run = Command::new(miwictl()).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    Output::of(&tokio::time::timeout(Duration::from_secs(30), run).await.expect("ends").expect("runs"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_socket_file_is_replaced() {
    let builder = Daemon::builder("");
    let path = builder.dir().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a socket file outlives its listener");
    let daemon = builder.start().await;
    assert_eq!(daemon.ctl_json(&["status"]).await["pid"], daemon.pid());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_a_live_socket_is_refused_with_the_pid_of_the_first() {
    let daemon = Daemon::start("").await;
    daemon.write("second.toml", "[server]\nbind = [\"127.0.0.1\"]\nhttp_port = {port3}\n[admin]\nlisten = \"off\"\n");
    let run = Command::new(miwid())
        .args(["run", "-c"])
        .arg(daemon.dir().join("second.toml"))
        .arg("--socket")
        .arg(daemon.socket())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = Output::of(&tokio::time::timeout(wait::LATER, run).await.expect("it ends").unwrap());
    assert_eq!(output.status, 8, "{output:?}");
    assert!(output.all().contains(&daemon.pid().to_string()), "{output:?}");
    assert_eq!(daemon.ctl(&["status"]).await.status, 0, "the first goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_closed_to_strangers_and_they_are_told_why() {
    let daemon = Daemon::start("").await;
    let mode = std::fs::metadata(daemon.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    if !skip::is_root() {
        skip!("becoming another user needs root");
    }
    // The build's own directory may be closed to others; the daemon's is not.
    let copy = daemon.dir().join("miwictl");
    std::fs::copy(miwictl(), &copy).unwrap();
    let run = Command::new(&copy).arg("--socket").arg(daemon.socket()).arg("status").uid(65534).gid(65534).output();
    let output = Output::of(&run.await.unwrap());
    assert_eq!(output.status, 4, "{output:?}");
    assert!(output.stderr.contains("65534") && output.stderr.contains("hint:"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_exit_code_is_3_with_a_hint() {
    for json in [false, true] {
        let mut args = vec!["--socket", "/nonexistent/control.sock", "status"];
        if json {
            args.extend(["-o", "json"]);
        }
        let output = offline(&args).await;
        assert_eq!(output.status, 3, "{output:?}");
        if json {
            let document: Value = serde_json::from_str(&output.stdout).unwrap();
            assert_eq!(document["schema"], "miwi/v1");
            assert_eq!(document["error"]["exit"], 3);
        } else {
            assert!(output.stderr.contains("hint:"), "{output:?}");
            assert!(output.stdout.is_empty(), "talk belongs on standard error: {output:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_app_is_not_found_and_the_nearest_name_is_offered() {
    let daemon = Daemon::start(&app("shop", "", &[], "")).await;
    let output = daemon.ctl(&["app", "status", "shpo"]).await;
    assert_eq!(output.status, 5, "{output:?}");
    assert!(output.stderr.contains("shop"), "{output:?}");
    assert_eq!(daemon.ctl(&["app", "dance", "shop"]).await.status, 2, "usage");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_has_the_fields_that_scripts_rely_on() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let status = daemon.ctl_json(&["status"]).await;
    assert_eq!(status["schema"], "miwi/v1");
    for field in ["version", "state", "config_path"] {
        assert!(status[field].is_string(), "{field}: {status}");
    }
    for field in ["pid", "uptime_seconds", "config_generation", "engine_generation", "workers"] {
        assert!(status[field].is_number(), "{field}: {status}");
    }
    assert!(
        status["listeners"][0]["address"].is_string() && status["listeners"][0]["protocols"].is_array(),
        "{status}"
    );
    assert!(status["connections"]["active"].is_number(), "{status}");
    let app = &status["apps"][0];
    for field in ["name", "site", "type", "state", "strategy", "reason"] {
        assert!(app[field].is_string(), "{field}: {app}");
    }
    for field in ["ready", "desired", "generation", "restarts"] {
        assert!(app[field].is_number(), "{field}: {app}");
    }
    let instance = &app["instances"][0];
    for field in ["id", "state", "address"] {
        assert!(instance[field].is_string(), "{field}: {instance}");
    }
    for field in ["slot", "pid", "uptime_seconds", "restarts", "memory_bytes", "cpu_percent", "in_flight"] {
        assert!(instance[field].is_number(), "{field}: {instance}");
    }
    // Starting is not ready: the check passes when the app has stayed up for its settle time.
    let checked = async || daemon.ctl(&["status", "--check"]).await.status;
    wait::for_value(wait::SOON, "the check passes", checked, |status| *status == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_check_judges_and_status_does_not() {
    let daemon = Daemon::start(&managed(&["--exit-code", "1"], "")).await;
    daemon.app_in_state("chaos", "crash-loop").await;
    assert_eq!(daemon.ctl(&["status"]).await.status, 0);
    assert_eq!(daemon.ctl(&["status", "--check"]).await.status, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listing_is_valid_json() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let commands: &[&[&str]] = &[
        &["status"],
        &["app", "list"],
        &["app", "status", "chaos"],
        &["app", "status", "nobody"],
        &["upstream", "list"],
        &["op", "list"],
        &["logs", "list"],
        &["config", "show"],
        &["reload", "--dry-run"],
        &["app", "restart", "chaos"],
        &["app", "stop", "nobody"],
    ];
    for command in commands {
        let document = daemon.ctl_json(command).await;
        assert_eq!(document["schema"], "miwi/v1", "{command:?}: {document}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_is_one_restart() {
    let daemon = Daemon::start(&managed(&["--pid-file", "{dir}/starts"], "")).await;
    daemon.app_ready("chaos").await;
    for _ in 0..2 {
        daemon.ctl_ok(&["app", "restart", "chaos", "--request-id", "01J-ONLY-ONCE"]).await;
    }
    assert_eq!(daemon.read("starts").lines().count(), 2, "the first start and one restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_client_leaves_the_operation_running() {
    let daemon = Daemon::start(&managed(&["--ready-after", "4000"], "")).await;
    daemon.app_ready("chaos").await;
    let before = daemon.app_pids("chaos").await;
    let client = daemon.ctl_child(&["app", "restart", "chaos"]);
    daemon.app_in_state("chaos", "rolling").await;
    let pid = i32::try_from(client.id().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
    let output = Output::of(&client.wait_with_output().await.unwrap());
    assert_eq!(output.status, 130, "{output:?}");
    assert!(output.stderr.contains("op watch"), "{output:?}");
    let id = output.stderr.split("op watch").nth(1).and_then(|it| it.split_whitespace().next()).unwrap().to_owned();
    daemon.ctl_ok(&["op", "watch", id.trim_matches(|c: char| !c.is_alphanumeric())]).await;
    assert_ne!(daemon.app_pids("chaos").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_is_exit_7_and_the_operation_finishes_later() {
    let daemon = Daemon::start(&managed(&["--ready-after", "4000"], "")).await;
    daemon.app_ready("chaos").await;
    let before = daemon.app_pids("chaos").await;
    let output = daemon.ctl(&["app", "restart", "chaos", "--timeout", "1s"]).await;
    assert_eq!(output.status, 7, "{output:?}");
    wait::until(wait::LATER, "the restart finishes", async || {
        let app = daemon.app("chaos").await;
        app["state"] == "running" && daemon.app_pids("chaos").await != before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_wait_returns_an_operation_that_can_be_watched() {
    let daemon = Daemon::start(&managed(&["--ready-after", "500"], "")).await;
    daemon.app_ready("chaos").await;
    let output = daemon.ctl_json(&["app", "restart", "chaos", "--no-wait"]).await;
    let operations = daemon.ctl_json(&["op", "list"]).await;
    let id = operations["operations"][0]["id"].as_str().unwrap_or_default().to_owned();
    assert!(!id.is_empty() && output.to_string().contains(&id), "{output} {operations}");
    daemon.ctl_ok(&["op", "watch", &id]).await;
    daemon.app_ready("chaos").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_adds_and_removes_instances_without_a_failed_request() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let load = daemon.load("chaos.test").paths(&["/fast", "/slow"]).start();
    load.flowing(20).await;
    for count in ["4", "2"] {
        daemon.ctl_ok(&["app", "scale", "chaos", count]).await;
        assert_eq!(daemon.app_pids("chaos").await.len().to_string(), count);
        load.flowing(20).await;
    }
    load.stop().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changed_what_is_in_the_audit_line() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    daemon.ctl_ok(&["app", "restart", "chaos"]).await;
    let uid = format!("uid={}", nix::unistd::geteuid());
    let log = daemon.log();
    let line = log.lines().find(|it| it.to_lowercase().contains("audit") && it.to_lowercase().contains("restart"));
    assert!(line.is_some_and(|it| it.contains(&uid) && it.contains("chaos")), "no audit line in:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_drains_and_ends_with_0() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let pid = daemon.app_pids("chaos").await[0];
    daemon.ctl_ok(&["shutdown"]).await;
    let socket = daemon.socket();
    assert_eq!(daemon.ended(wait::LATER).await.code, Some(0));
    assert!(!harness::exists(pid), "the app went with it");
    assert!(!socket.exists(), "and so did the socket");
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_are_judged_without_a_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (directory.path().join("good.toml"), directory.path().join("bad.toml"));
    std::fs::write(&good, "[server]\nhttp_port = 8080\n").unwrap();
    std::fs::write(&bad, "[server]\nhttp_prot = 8081\n").unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    assert_eq!(offline(&["config", "check", good]).await.status, 0);
    let output = offline(&["config", "check", bad]).await;
    assert_eq!(output.status, 6, "{output:?}");
    assert!(output.all().contains("http_port") && output.all().contains("bad.toml:2"), "{output:?}");
    let schema = offline(&["config", "schema"]).await;
    let schema: Value = serde_json::from_str(&schema.stdout).expect("a JSON schema");
    assert!(schema["properties"]["server"].is_object(), "{schema}");
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_manual_pages_come_out_of_the_binary() {
    for shell in ["bash", "zsh", "fish"] {
        let output = offline(&["completions", shell]).await;
        assert!(output.status == 0 && output.stdout.contains("miwictl"), "{shell}: {output:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(offline(&["man", directory.path().to_str().unwrap()]).await.status, 0);
    assert!(directory.path().join("miwictl.1").exists());
}

// 110. Bytes that are no text are refused like any other wrong word.
#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_are_no_text_are_an_error_and_no_panic() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let odd = OsStr::from_bytes(b"\xff\xfe");
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let before: [&[&str]; 5] = [&[], &["app", "status"], &["app", "logs"], &["cert", "show"], &["config", "check"]];
    for words in before {
        let mut command = Command::new(miwictl());
        command.arg("--socket").arg(daemon.socket()).args(words).arg(odd).stdin(Stdio::null()).kill_on_drop(true);
        let output = Output::of(&tokio::time::timeout(wait::LATER, command.output()).await.expect("it ends").unwrap());
        assert!([2, 5, 6].contains(&output.status), "{words:?}: {output:?}");
        assert!(!output.all().contains("panicked"), "{words:?}: {output:?}");
    }
    let mut command = Command::new(miwid());
    command.args(["check", "-o", "json", "-c"]).arg(odd).stdin(Stdio::null()).kill_on_drop(true);
    let output = Output::of(&tokio::time::timeout(wait::LATER, command.output()).await.expect("it ends").unwrap());
    assert!([2, 6].contains(&output.status) && !output.all().contains("panicked"), "{output:?}");

    // What an app says is shown all the same.
    daemon.get_host("chaos.test", "/log?raw=1").await;
    wait::until(wait::SOON, "its output is shown", async || {
        daemon.ctl_ok(&["app", "logs", "chaos", "-o", "jsonl"]).await.stdout.contains("bytes")
    })
    .await;
    assert_eq!(daemon.ctl(&["status"]).await.status, 0);
}

// 106. Others may take up all the places but a few, which are root's.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_listen_root_is_served() {
    const NOBODY: u32 = 65534;
    if !skip::is_root() {
        skip!("becoming another user needs root");
    }
    let Ok(Some(group)) = nix::unistd::Group::from_gid(NOBODY.into()) else { skip!("there is no group {NOBODY}") };
    let daemon = Daemon::start(&format!("[control]\ngroup = {:?}\n", group.name)).await;
    let copy = daemon.dir().join("miwictl");
    std::fs::copy(miwictl(), &copy).unwrap();
    let listen = || {
        let mut command = Command::new(&copy);
        command.arg("--socket").arg(daemon.socket()).args(["events", "-f"]).uid(NOBODY).gid(NOBODY);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
    };
    let mut listeners: Vec<_> = (0..64).map(|_| listen()).collect();
    let mut refused = 0;
    let end = tokio::time::Instant::now() + wait::LATER;
    while refused == 0 {
        assert!(tokio::time::Instant::now() < end, "nobody was refused");
        refused = listeners.iter_mut().filter_map(|it| it.try_wait().unwrap()).count();
        assert_eq!(daemon.ctl(&["status"]).await.status, 0, "root is served");
    }
    assert!(refused < listeners.len(), "the others listen");
    assert!(daemon.log().contains("too many are open"));
}
