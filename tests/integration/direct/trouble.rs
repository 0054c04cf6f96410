//! What goes wrong around plain requests that are forwarded: servers that say more than they should, and a machine that has
//! nothing left.

use std::{fs, process::Command};

use harness::{Daemon, RawOrigin, skip, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    CONFIG, Wire,
    handed_on::{answers_handed_on, record_of},
    serving,
};

/// A server that is asked over HTTP/2 may say something else over HTTP/1.1, which upgrades are spoken in.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_an_upgrade_has_left_carries_nothing_for_a_server_of_http2() {
    let origin = RawOrigin::lasting(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n").await;
    let site = format!("[backends.\"two.test\"]\nurl = \"{}\"\nupstream_http = \"2\"\nretries = 0\n", origin.url());
    let daemon = Daemon::start(&format!("{CONFIG}{site}")).await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let refused = Wire::to(&daemon).await.ask("", "two.test", "/", upgrade).await;
    assert!(refused[0].0[0].starts_with("HTTP/1.1 426 "), "{refused:?}");
    Wire::to(&daemon).await.ask("", "two.test", "/", "").await;
    let heads = origin.heads();
    assert!(heads.len() == 2 && heads[1].starts_with("PRI * HTTP/2.0\r\n"), "{heads:#?}");
}

/// Long enough to go from socket to socket.
const LONG: usize = 3_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_for_which_there_is_no_pipe_goes_through_memory() {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n");
    let long: &[u8] = [head.as_bytes(), &vec![b'x'; LONG]].concat().leak();
    let origins = [("long", RawOrigin::lasting(long).await)];
    let daemon = serving(&origins).await;
    let mut wire = Wire::to(&daemon).await;
    // Opens the connection that the next one finds.
    wire.ask("", "long.test", "/", "").await;
    let pid = daemon.pid().to_string();
    let limit = |most: u32| Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={most}:")]).status();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open: Vec<u32> = open.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok()).collect();
    let free = (0..).find(|it| !open.contains(it)).unwrap();
    if !limit(free).is_ok_and(|it| it.success()) {
        skip!("limits of another process cannot be set here");
    }
    wire.0.write_all(b"GET / HTTP/1.1\r\nhost: long.test\r\n\r\n").await.unwrap();
    let mut got = Vec::new();
    while got.len() < long.len() {
        let count = tokio::time::timeout(wait::SOON, wire.0.read_buf(&mut got)).await.unwrap().unwrap();
        assert!(count > 0, "it broke off after {} bytes", got.len());
    }
    assert!(got.ends_with(b"xxx"));
    assert!(limit(4096).is_ok_and(|it| it.success()));
    assert_eq!(answers_handed_on(&daemon).await, 1);
}

/// Connections are counted without pipes.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_do_not_take_all_descriptors_for_pipes() {
    const CLIENTS: usize = 80;
    const PIPES_MAX: usize = 64;
    // More than sockets hold.
    const LONG: usize = 12 << 20;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n");
    let long: &[u8] = [head.as_bytes(), &vec![b'x'; LONG]].concat().leak();
    let origins = [("long", RawOrigin::lasting(long).await)];
    let daemon = serving(&origins).await;
    let ends = || {
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).into_iter().flatten().flatten();
        open.filter(|it| fs::read_link(it.path()).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"))).count()
    };
    let others = ends();
    let mut wires = Vec::new();
    for _ in 0..CLIENTS {
        wires.push(Wire::to(&daemon).await);
    }
    // The second time they find connections that are open, and do not read.
    for reads in [true, false] {
        for wire in &mut wires {
            wire.0.write_all(b"GET / HTTP/1.1\r\nhost: long.test\r\n\r\n").await.unwrap();
        }
        if reads {
            for wire in &mut wires {
                assert_eq!(wire.answer().await.1.len(), LONG);
            }
        }
    }
    wait::until(wait::LATER, "all pipes are taken", async || ends() >= others + 2 * PIPES_MAX).await;
    for wire in &mut wires {
        let body = wire.answer().await.1;
        assert!(body.len() == LONG && body.ends_with(b"xxx") && ends() <= others + 2 * PIPES_MAX);
    }
    wait::until(wait::LATER, "most are closed", async || ends() < others + PIPES_MAX).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_that_stands_still_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("[backends.\"still.test\"]\nurl = \"http://{}\"\n", listener.local_addr().unwrap());
    let config = CONFIG.replace("workers = 1\n", "workers = 1\nrequest_timeout = \"1s\"\n");
    let daemon = Daemon::start(&format!("{config}{site}")).await;
    let mut wire = Wire::to(&daemon).await;
    let asked = tokio::spawn(async move {
        wire.ask("", "still.test", "/", "").await;
        wire.0.write_all(b"GET /long HTTP/1.1\r\nhost: still.test\r\n\r\n").await.unwrap();
        let mut got = Vec::new();
        tokio::time::timeout(wait::SOON, wire.0.read_to_end(&mut got)).await.expect("the client is let go").unwrap();
        got
    });
    let (mut upstream, _) = listener.accept().await.unwrap();
    let half =
        [format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n").as_bytes(), &vec![b'x'; LONG / 2]].concat();
    for answer in [&b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst"[..], &half] {
        assert!(upstream.read(&mut [0; 4096]).await.unwrap() > 0);
        upstream.write_all(answer).await.unwrap();
    }
    let ended = tokio::time::timeout(wait::SOON, upstream.read(&mut [0])).await.expect("the upstream is let go");
    assert!(ended.is_ok_and(|it| it == 0));
    assert!(asked.await.unwrap().len() > LONG / 2);
    let record = record_of(&daemon, 1).await;
    assert_eq!((&record["aborted"], &record["bytes_sent"]), (&true.into(), &(LONG / 2).into()), "{record}");
    assert_eq!(answers_handed_on(&daemon).await, 1);
}

/// More than sockets hold.
const HINTS: usize = 32 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_before_an_answer_is_not_hoarded_for_a_client_that_does_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("[backends.\"talkative.test\"]\nurl = \"http://{}\"\n", listener.local_addr().unwrap());
    let daemon = Daemon::start(&format!("{CONFIG}{site}")).await;
    let hint = format!("HTTP/1.1 103 Early Hints\r\nlink: <{}>\r\n\r\n", "x".repeat(15 << 10));
    let (mut upstream, mut other) = (None, Wire::to(&daemon).await);
    for before in ["", "", "\r\n"] {
        let mut wire = Wire::to(&daemon).await;
        let request = format!("{before}GET / HTTP/1.1\r\nhost: talkative.test\r\n\r\n");
        wire.0.write_all(request.as_bytes()).await.unwrap();
        let upstream = match &mut upstream {
            Some(upstream) => upstream,
            None => upstream.insert(listener.accept().await.unwrap().0),
        };
        assert!(upstream.read(&mut [0; 4096]).await.unwrap() > 0);
        for _ in 0..HINTS / hint.len() {
            upstream.write_all(hint.as_bytes()).await.unwrap();
            // The daemon's one worker comes to this when it has been to that.
            other.ask("", "files.test", "/said", "").await;
        }
        upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlast").await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\nlast") {
            let count = tokio::time::timeout(wait::SOON, wire.0.read_buf(&mut got)).await.unwrap().unwrap();
            assert!(count > 0, "it broke off");
        }
        assert!(got.starts_with(b"HTTP/1.1 103 "), "{before:?}");
        assert!(got.len() < HINTS / 2, "{before:?}: {} bytes were kept", got.len());
    }
}
