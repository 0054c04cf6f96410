//! Clients that hold on by being slow: each is let go, and nobody else notices.

use std::time::Duration;

use harness::{Daemon, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use super::{Recorder, daemon, statuses};

const CONNECTIONS: usize = 2000;
/// How long each attack goes on.
const ATTACK: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_is_answered_like_every_request() {
    let recorder = Recorder::start().await;
    let daemon = daemon(&recorder, "request_timeout = \"300ms\"").await;
    let answer = super::exchange(&daemon, b"GET /slow HTTP/1.1\r\nhost: files.test\r\nx: ").await.expect("it ends");
    assert_eq!(statuses(&answer), [408], "{answer}");
    for header in ["miwi-reason: head-timeout", "server: miwid", "date: ", "connection: close"] {
        assert!(answer.contains(header), "{header} in {answer}");
    }
    let recorded = wait::for_value(
        wait::SOON,
        "the record",
        || async { daemon.read("access.log") },
        |it| it.contains("head-timeout"),
    )
    .await;
    assert!(recorded.contains("/slow"), "{recorded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_answered_408_though_it_never_stops() {
    let recorder = Recorder::start().await;
    let daemon = daemon(&recorder, "request_timeout = \"600ms\"").await;
    let stream = TcpStream::connect(daemon.http()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(b"POST /a HTTP/1.1\r\nhost: proxy.test\r\ncontent-length: 1000\r\n\r\n").await.unwrap();
    let trickle = async {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        while writer.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = String::new();
    let read = tokio::time::timeout(wait::SOON, reader.read_to_string(&mut answer));
    tokio::select! {
        read = read => read.expect("it is answered").expect("it is closed in order"),
        () = trickle => unreachable!("it never ends"),
    };
    assert_eq!(statuses(&answer), [408], "{answer}");
    assert!(answer.contains("miwi-reason: body-timeout"), "{answer}");
    assert!(recorder.take().iter().all(|it| it.body.is_none()), "nothing whole arrives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_has_begun_is_still_answered_when_the_daemon_stops() {
    let recorder = Recorder::start().await;
    let daemon = daemon(&recorder, "workers = 1\n[admin]\nlisten = \"127.0.0.1:{port2}\"").await;
    let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: files.test\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"a!") {
        seen.push(stream.read_u8().await.unwrap());
    }
    let idle = async |wanted: usize| gauge(&daemon, "miwid_connections{state=\"idle\"} ").await == wanted;
    wait::until(wait::SOON, "the connection is idle", || idle(1)).await;
    stream.write_all(b"GET /after HTTP/1.1\r\nhost: fi").await.unwrap();
    wait::until(wait::SOON, "half a head has come", || idle(0)).await;
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let refused = async || TcpStream::connect(daemon.http()).await.is_err();
    wait::until(wait::SOON, "the daemon drains", refused).await;
    stream.write_all(b"les.test\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(wait::SOON, stream.read_to_string(&mut answer)).await.expect("it ends").unwrap();
    assert_eq!(statuses(&answer), [200], "{answer}");
    assert!(answer.ends_with("after!"), "{answer}");
}

/// A line of the daemon's `status` in /proc.
fn kilobytes(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn gauge(daemon: &Daemon, name: &str) -> usize {
    let metrics = harness::get(daemon.address(2), "localhost", "/metrics").await.unwrap().text();
    let line = metrics.lines().find_map(|it| it.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} is missing in {metrics}")).parse().unwrap()
}

/// Runs slowhttptest with `mode`, and asks for a file all the time.
async fn attacked(daemon: &Daemon, mode: &[&str]) {
    let url = format!("http://{}/a", daemon.http());
    let seconds = ATTACK.as_secs().to_string();
    let mut attack = Command::new("slowhttptest")
        .args(["-c", &CONNECTIONS.to_string(), "-r", "1000", "-l", &seconds, "-p", "5", "-u", &url])
        .args(mode)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("slowhttptest runs");
    let mut served = 0;
    while attack.try_wait().expect("waits").is_none() {
        let reply = tokio::time::timeout(Duration::from_secs(5), daemon.get_host("files.test", "/a")).await;
        assert_eq!(reply.expect("the second client is served").status, 200, "{mode:?}");
        served += 1;
    }
    assert!(served > 50, "{mode:?}: {served}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_bodies_and_readers_do_not_keep_others_out() {
    if std::process::Command::new("slowhttptest").arg("-h").output().is_err() {
        harness::skip!("slowhttptest is not installed");
    }
    let recorder = Recorder::start().await;
    let daemon = daemon(&recorder, "request_timeout = \"3s\"\n[admin]\nlisten = \"127.0.0.1:{port2}\"").await;
    let before = kilobytes(daemon.pid(), "VmRSS:");
    daemon.write("files/big", &"x".repeat(1 << 20));
    let big = format!("http://{}/big", daemon.http());
    for mode in [
        &["-H", "-i", "2"][..],
        &["-B", "-i", "2", "-s", "8192"],
        &["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3", "-u", &big],
    ] {
        attacked(&daemon, mode).await;
    }
    let came = gauge(&daemon, "miwid_connections_total ").await;
    assert!(came >= 3 * CONNECTIONS, "the attacks were {came} connections");
    let peak = kilobytes(daemon.pid(), "VmHWM:");
    assert!(peak - before < CONNECTIONS as u64 * 64, "{before} KB before, {peak} KB at the worst");
    wait::until(Duration::from_secs(30), "all are let go", || async {
        gauge(&daemon, "miwid_connections{state=\"open\"} ").await <= 2
    })
    .await;
}
