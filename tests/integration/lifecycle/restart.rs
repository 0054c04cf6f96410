//! E. Restarting under load: the promise is that no request fails.

use harness::{Daemon, Load, LoadResult, exists, get, wait};
use http::{Request, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{fixed, managed};

const MIXED: &[&str] = &["/fast", "/slow", "/", "/fast"];

async fn restarted(daemon: &Daemon, load: Load, times: usize) -> LoadResult {
    daemon.app_ready("chaos").await;
    let load = load.paths(MIXED).start();
    load.flowing(50).await;
    for _ in 0..times {
        let before = daemon.app_pids("chaos").await;
        daemon.ctl_ok(&["app", "restart", "chaos"]).await;
        let after = daemon.app_pids("chaos").await;
        assert!(before.iter().all(|it| !after.contains(it)), "every process is new: {before:?} {after:?}");
        load.flowing(50).await;
    }
    load.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_over_two_slots_fails_no_request() {
    let daemon = Daemon::start(&managed(&[], "instances = 2")).await;
    let result = restarted(&daemon, daemon.load("chaos.test").connections(50), 2).await;
    result.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_one_slot_fails_no_request() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    let result = restarted(&daemon, daemon.load("chaos.test").connections(50), 3).await;
    result.assert_none_failed();
    assert_eq!(daemon.app("chaos").await["strategy"], "rolling");
}

#[tokio::test(flavor = "multi_thread")]
async fn holding_on_a_fixed_port_fails_no_request() {
    let daemon = Daemon::start(&fixed(&[], "")).await;
    let result = restarted(&daemon, daemon.load("chaos.test").connections(50), 3).await;
    result.assert_none_failed();
    println!("hold restart: the slowest of {} requests took {:?}", result.ok, result.slowest);
    assert_eq!(daemon.app("chaos").await["strategy"], "hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_hold_refuses_the_overflow_and_serves_the_rest() {
    const CLIENTS: usize = 100;
    const ROOM: usize = 10;
    let hold = "[backends.\"chaos.test\".process.hold]\nmax_requests = 10\n";
    let daemon = Daemon::start(&fixed(&["--ready-after", "3000"], &format!("\n{hold}"))).await;
    daemon.app_ready("chaos").await;
    let mut restart = daemon.ctl_child(&["app", "restart", "chaos"]);
    daemon.app_in_state("chaos", "holding").await;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let http = daemon.http();
            tokio::spawn(async move { get(http, "chaos.test", "/").await.unwrap() })
        })
        .collect();
    let (mut served, mut refused) = (0, 0);
    for client in clients {
        let reply = client.await.unwrap();
        match reply.status {
            200 => served += 1,
            503 => {
                assert_eq!(reply.header("miwi-reason"), "hold-full");
                assert!(!reply.header("retry-after").is_empty());
                refused += 1;
            }
            other => panic!("{other}: {}", reply.text()),
        }
    }
    assert_eq!((served, refused), (ROOM, CLIENTS - ROOM));
    assert!(restart.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_whose_new_version_fails_ends_with_a_reason_and_exit_6() {
    let daemon = Daemon::start(&fixed(&["--fail-if-exists", "{dir}/broken"], "start_timeout = \"3s\"")).await;
    daemon.app_ready("chaos").await;
    daemon.write("broken", "");
    let http = daemon.http();
    let mut restart = daemon.ctl_child(&["app", "restart", "chaos"]);
    wait::until(wait::SOON, "the old process is gone", async || daemon.app("chaos").await["state"] != "running").await;
    let held = get(http, "chaos.test", "/").await.unwrap();
    assert!([503, 504].contains(&held.status), "{}: {}", held.status, held.text());
    assert_eq!(restart.wait().await.unwrap().code(), Some(6));
    daemon.told_any("chaos", &["told to fail"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_that_fails_its_gate_leaves_the_old_one_serving() {
    let daemon = Daemon::start(&managed(&["--fail-if-exists", "{dir}/broken"], "instances = 2")).await;
    daemon.app_ready("chaos").await;
    let before = daemon.app_pids("chaos").await;
    let load = daemon.load("chaos.test").paths(MIXED).start();
    load.flowing(50).await;
    daemon.write("broken", "");
    let output = daemon.ctl(&["app", "restart", "chaos"]).await;
    assert_eq!(output.status, 6, "{output:?}");
    assert!(output.all().contains("told to fail"), "the app's last lines say why: {output:?}");
    assert_eq!(daemon.app_pids("chaos").await, before, "the old processes are untouched");
    load.flowing(50).await;
    load.stop().await.assert_none_failed();
    std::fs::remove_file(daemon.dir().join("broken")).unwrap();
    daemon.ctl_ok(&["app", "restart", "chaos"]).await;
    assert!(daemon.app_pids("chaos").await.iter().all(|it| !before.contains(it)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_during_a_restart_is_refused_and_a_stop_wins() {
    let daemon = Daemon::start(&managed(&["--ready-after", "5000"], "")).await;
    daemon.app_ready("chaos").await;
    let mut first = daemon.ctl_child(&["app", "restart", "chaos"]);
    daemon.app_in_state("chaos", "rolling").await;
    let second = daemon.ctl(&["app", "restart", "chaos"]).await;
    assert_eq!(second.status, 8, "{second:?}");
    assert!(second.all().contains("restart"), "the holder is named: {second:?}");
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    assert_eq!(daemon.app("chaos").await["state"], "stopped");
    assert!(!first.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_never_sent_twice() {
    let daemon = Daemon::start(&managed(&["--crash-on", "/boom", "--pid-file", "{dir}/starts"], "instances = 2")).await;
    daemon.app_ready("chaos").await;
    let post =
        Request::post("/boom").header(header::HOST, "chaos.test").body(bytes::Bytes::from_static(b"once")).unwrap();
    assert_eq!(daemon.request(post).await.status, 502);
    daemon.app_where("chaos", "both are ready again", |it| it["ready"] == 2 && it["restarts"] == 1).await;
    assert_eq!(daemon.read("starts").lines().count(), 3, "one instance died of it, not two");
}

// 59. What has begun goes on where it began.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_ends_at_the_instance_that_has_its_beginning() {
    let daemon = Daemon::start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let old = daemon.app_pids("chaos").await[0];
    let mut upload = TcpStream::connect(daemon.http()).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nhost: chaos.test\r\nconnection: close\r\ncontent-length: 20\r\n\r\nfirst half";
    upload.write_all(head.as_bytes()).await.unwrap();
    // The health page is no request of the app's, so this is the upload.
    let begun = async || daemon.app("chaos").await["instances"][0]["in_flight"] == 1;
    wait::until(wait::SOON, "it has begun", begun).await;
    let mut restart = daemon.ctl_child(&["app", "restart", "chaos"]);
    let answers = async || daemon.get_host("chaos.test", "/").await.text();
    let is_new = |it: &String| it.contains("pid=") && !it.contains(&format!("pid={old} "));
    wait::for_value(wait::SOON, "the new one answers", answers, is_new).await;
    assert!(exists(old), "the old one waits for the rest");
    upload.write_all(b"other half").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(wait::SOON, upload.read_to_string(&mut answer)).await.expect("it is answered").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("first halfother half"), "{answer}");
    assert!(restart.wait().await.unwrap().success());
    assert!(!exists(old));
}

// 60. Those who waited do not fall upon the new instance all at once.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_hold_the_new_instance_sees_at_most_sixty_four_at_once() {
    const CLIENTS: usize = 200;
    let flags = ["--ready-after", "2000", "--health-file", "{dir}/health"];
    let daemon = Daemon::builder(&fixed(&flags, "")).file("health", "200").start().await;
    daemon.app_ready("chaos").await;
    let mut restart = daemon.ctl_child(&["app", "restart", "chaos"]);
    daemon.app_in_state("chaos", "holding").await;
    // Not ready before everybody waits.
    daemon.write("health", "503");
    let http = daemon.http();
    let ask = || tokio::spawn(async move { get(http, "chaos.test", "/sleep?ms=200").await.unwrap().status });
    let clients: Vec<_> = (0..CLIENTS).map(|_| ask()).collect();
    let waits = format!("miwid_held_requests{{upstream=\"chaos\"}} {CLIENTS}");
    let metrics = async || daemon.get("/metrics").await.text();
    wait::for_value(wait::SOON, "all wait", metrics, |it| it.lines().any(|it| it == waits)).await;
    daemon.write("health", "200");
    for client in clients {
        assert_eq!(client.await.unwrap(), 200);
    }
    assert!(restart.wait().await.unwrap().success());
    let stats = get(http, "chaos.test", "/stats").await.unwrap().json();
    let most = stats["in_flight_max"].as_u64().unwrap();
    assert!((2..=64).contains(&most), "{stats}");
    assert_eq!(stats["requests"], CLIENTS + 1);
}
