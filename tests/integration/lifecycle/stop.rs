//! C. Stopping: drain, signal, kill; nothing is left behind and nothing in flight is lost.

use std::time::Duration;

use harness::{Daemon, Received, descendants, exists, get, listening_on, skip, wait};
use tokio::io::AsyncWriteExt;

use super::{fixed, managed, other};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_ignores_sigterm_is_killed_and_it_is_said_so() {
    let daemon = Daemon::start(&managed(&["--ignore-term"], "stop_timeout = \"1s\"")).await;
    daemon.app_ready("chaos").await;
    let pid = daemon.app_pids("chaos").await[0];
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    assert!(!exists(pid));
    daemon.told_any("chaos", &["ignored SIGTERM"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_hold_the_port_go_with_the_app() {
    let daemon = Daemon::start(&fixed(&["--fork-holder"], "stop_timeout = \"1s\"")).await;
    daemon.app_ready("chaos").await;
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    wait::until(wait::SOON, "the whole tree is gone", async || {
        descendants(daemon.pid()).iter().all(|it| it.command != "chaos-app") && !listening_on(daemon.address(2).port())
    })
    .await;
    daemon.ctl_ok(&["app", "start", "chaos"]).await;
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200, "a restart binds at once");
    daemon.ctl_ok(&["app", "restart", "chaos"]).await;
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 200);
}

// 29. Many starts and stops: nothing is left of any of them.
#[tokio::test(flavor = "multi_thread")]
async fn stops_and_starts_leave_nothing_behind() {
    let daemon = Daemon::start(&managed(&[], "listen = \"unix\"")).await;
    daemon.app_ready("chaos").await;
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    let count = |path: String| std::fs::read_dir(path).map_or(0, Iterator::count);
    let descriptors = || count(format!("/proc/{}/fd", daemon.pid()));
    let threads = || count(format!("/proc/{}/task", daemon.pid()));
    let before = (descriptors(), threads());
    for _ in 0..40 {
        daemon.ctl_ok(&["app", "start", "chaos"]).await;
        daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    }
    wait::until(wait::SOON, "descriptors and threads are as they were", async || {
        descriptors() <= before.0 + 4 && threads() <= before.1 + 4
    })
    .await;
    wait::until(wait::SOON, "no socket is left", async || count(format!("{}/i", daemon.dir().display())) == 0).await;
    assert!(descendants(daemon.pid()).iter().all(|it| it.command != "chaos-app"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_npm_wrapper_passes_sigterm_exactly_once() {
    if std::process::Command::new("npm").arg("--version").output().is_err() {
        skip!("npm is not installed");
    }
    let server = "const fs = require('fs');\n\
        process.on('SIGTERM', () => { fs.appendFileSync('terms', 'SIGTERM\\n'); setTimeout(() => process.exit(0), 200); });\n\
        require('http').createServer((_, r) => r.end('node')).listen(process.env.PORT);\n";
    // The `true &&` keeps npm and its shell in between.
    let package = r#"{"name": "wrapped", "version": "1.0.0", "scripts": {"start": "true && node server.js"}}"#;
    let config = "[backends.\"npm.test\"]\nname = \"npm\"\napp_type = \"nodejs\"\n\
        [backends.\"npm.test\".process]\nworking_dir = \"{dir}/app\"\nsettle_time = \"200ms\"\n";
    let daemon = Daemon::builder(config).file("app/server.js", server).file("app/package.json", package).start().await;
    daemon.app_ready("npm").await;
    daemon.ctl_ok(&["app", "stop", "npm"]).await;
    assert_eq!(daemon.read("app/terms").lines().count(), 1);
    wait::until(wait::SOON, "no node is left", async || {
        descendants(daemon.pid()).iter().all(|it| !it.command.contains("node"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_wrapper_with_a_trap_hears_sigterm_exactly_once() {
    let script = "#!/bin/sh\n{chaos} --term-file {dir}/app-terms &\nchild=$!\n\
        trap 'echo SIGTERM >> {dir}/terms; kill -TERM $child' TERM\nwait $child\nwait $child\n";
    let daemon =
        Daemon::builder(&other("chaos", "", "command = \"{dir}/app.sh\"")).script("app.sh", script).start().await;
    daemon.app_ready("chaos").await;
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    assert_eq!(daemon.read("terms").lines().count(), 1);
    assert_eq!(daemon.read("app-terms").lines().count(), 1);
    wait::until(wait::SOON, "the app below the shell is gone", async || {
        descendants(daemon.pid()).iter().all(|it| it.command != "chaos-app")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grandchild_that_keeps_standard_output_does_not_delay_the_end() {
    let daemon = Daemon::start(&managed(&["--hold-stdout", "600000"], "")).await;
    daemon.app_ready("chaos").await;
    let pid = daemon.app_pids("chaos").await[0];
    daemon.signal_pid(pid, nix::sys::signal::Signal::SIGKILL);
    daemon
        .app_where("chaos", "a new process is ready", |it| it["state"] == "running" && it["instances"][0]["pid"] != pid)
        .await;
    daemon.told_any("chaos", &["SIGKILL"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_completes_before_the_signal() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let http = daemon.http();
    let slow = tokio::spawn(async move { get(http, "chaos.test", "/sleep?ms=3000").await });
    daemon.app_where("chaos", "the request is in flight", |it| it["instances"][0]["in_flight"] == 1).await;
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    let reply = slow.await.unwrap().expect("an answer");
    assert_eq!(reply.status, 200);
    let refused = daemon.get_host("chaos.test", "/").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("miwi-reason"), "app-stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_websocket_is_closed_after_its_time_when_the_app_restarts() {
    let daemon = Daemon::start(&managed(&[], "stream_drain = \"1s\"")).await;
    daemon.app_ready("chaos").await;
    let mut socket = daemon.websocket("chaos.test", "/ws").await;
    socket.echo("before").await;
    let (output, end) = tokio::join!(daemon.ctl(&["app", "restart", "chaos"]), socket.receive_within(wait::LATER));
    assert_eq!(output.status, 0, "{output:?}");
    assert!(matches!(end, Received::Closed(_) | Received::Cut), "{end:?}");
}

// 37. The other wishes: at once, and as long as the drain lasts.
#[tokio::test(flavor = "multi_thread")]
async fn websockets_end_at_once_or_when_the_drain_does() {
    for (wish, lives_meanwhile) in [("now", false), ("wait", true)] {
        let daemon = Daemon::start(&managed(&[], &format!("stream_drain = \"{wish}\"\ndrain_timeout = \"3s\""))).await;
        daemon.app_ready("chaos").await;
        let mut socket = daemon.websocket("chaos.test", "/ws").await;
        socket.echo("before").await;
        let mut restart = daemon.ctl_child(&["app", "restart", "chaos"]);
        if lives_meanwhile {
            daemon
                .app_where("chaos", "the old one drains", |it| {
                    it["instances"].as_array().is_some_and(|all| all.iter().any(|it| it["state"] == "draining"))
                })
                .await;
            socket.echo("meanwhile").await;
        }
        let end = socket.receive_within(wait::LATER).await;
        assert!(matches!(end, Received::Closed(_) | Received::Cut), "{wish}: {end:?}");
        assert!(restart.wait().await.unwrap().success());
    }
}

// 38. The same for a stream of events.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_ends_after_its_time_when_the_app_restarts() {
    use tokio::io::AsyncReadExt;
    let daemon = Daemon::start(&managed(&[], "stream_drain = \"1s\"")).await;
    daemon.app_ready("chaos").await;
    let mut stream = tokio::net::TcpStream::connect(daemon.http()).await.unwrap();
    stream.write_all(b"GET /sse HTTP/1.1\r\nHost: chaos.test\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(7).any(|it| it == b"data: 1") {
        let read = tokio::time::timeout(wait::SOON, stream.read_buf(&mut seen)).await;
        assert!(read.expect("events flow").unwrap() > 0, "the stream is open");
    }
    let rest = async {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(wait::LATER, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the stream of the old instance ends");
    };
    let (output, ()) = tokio::join!(daemon.ctl(&["app", "restart", "chaos"]), rest);
    assert_eq!(output.status, 0, "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_starting_is_clean_and_routes_nothing() {
    let daemon = Daemon::start(&managed(&["--ready-after", "600000"], "")).await;
    wait::until(wait::SOON, "it starts", async || !daemon.app_pids("chaos").await.is_empty()).await;
    let pid = daemon.app_pids("chaos").await[0];
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    assert_eq!(daemon.app("chaos").await["state"], "stopped");
    assert!(!exists(pid));
    assert_eq!(daemon.get_host("chaos.test", "/").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_now_cuts_a_drain_short() {
    let daemon = Daemon::start(&managed(&[], "drain_timeout = \"10m\"")).await;
    daemon.app_ready("chaos").await;
    let http = daemon.http();
    let slow = tokio::spawn(async move { get(http, "chaos.test", "/sleep?ms=600000").await });
    daemon.app_where("chaos", "the request is in flight", |it| it["instances"][0]["in_flight"] == 1).await;
    let mut patient = daemon.ctl_child(&["app", "stop", "chaos"]);
    daemon.app_where("chaos", "it drains", |it| it["instances"][0]["state"] == "draining").await;
    daemon.ctl_ok(&["app", "stop", "--now", "chaos"]).await;
    assert_eq!(daemon.app("chaos").await["state"], "stopped");
    // The client sees a 502 or a cut connection, never a silent wait.
    if let Ok(reply) = slow.await.unwrap() {
        assert_eq!(reply.status, 502);
    }
    let _ = patient.wait().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_keep_a_drain_waiting() {
    let daemon = Daemon::start(&managed(&[], "drain_timeout = \"10m\"")).await;
    daemon.app_ready("chaos").await;
    let mut client = tokio::net::TcpStream::connect(daemon.http()).await.unwrap();
    client.write_all(b"GET /sleep?ms=600000 HTTP/1.1\r\nHost: chaos.test\r\n\r\n").await.unwrap();
    daemon.app_where("chaos", "the request is in flight", |it| it["instances"][0]["in_flight"] == 1).await;
    drop(client);
    let stop = tokio::time::timeout(Duration::from_secs(60), daemon.ctl_ok(&["app", "stop", "chaos"])).await;
    assert!(stop.is_ok(), "the drain waits for a request that nobody wants any more");
}
