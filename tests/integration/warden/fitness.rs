//! An upgrade to something that answers worse than what was there is taken back by itself.

use std::process::Command;

use harness::{RawOrigin, skip, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{engines, is_generation, start_with};
use crate::lifecycle::managed;

/// The status of an answer, `None` when there is none.
async fn ask(connection: &mut TcpStream) -> Option<u16> {
    connection.write_all(b"GET / HTTP/1.1\r\nhost: far.test\r\n\r\n").await.ok()?;
    let mut got = Vec::new();
    loop {
        let read = tokio::time::timeout(wait::LATER, connection.read_buf(&mut got)).await.expect("it answers");
        if read.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&got).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.split_once("content-length: ").and_then(|(_, it)| it.lines().next()?.parse::<usize>().ok());
        if length.is_none_or(|it| body.len() >= it) {
            return head.get(9..12)?.parse().ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_gives_more_errors_of_its_own_gives_everything_back() {
    // Every answer takes another connection to this one.
    let origin = RawOrigin::start(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
    let site = format!("[backends.\"far.test\"]\nurl = \"{}\"\nretries = 0\n", origin.url());
    let daemon = start_with(&format!("{site}{}", managed(&[], "")), "60000").await;
    daemon.app_ready("chaos").await;
    let (pids, old) = (daemon.app_pids("chaos").await, engines(&daemon));
    let mut first = TcpStream::connect(daemon.http()).await.unwrap();
    for _ in 0..50 {
        assert_eq!(ask(&mut first).await, Some(200));
    }
    let upgrade = daemon.ctl_child(&["upgrade"]);
    is_generation(&daemon, 2).await;
    let new = engines(&daemon).into_iter().find(|it| !old.contains(it)).expect("a second engine");
    let mut connection = TcpStream::connect(daemon.http()).await.unwrap();
    assert_eq!(ask(&mut connection).await, Some(200), "the new one serves");

    // From here on it can open nothing.
    let limit = Command::new("prlimit").args(["--pid", &new.to_string(), "--nofile=3:"]).status();
    if !limit.is_ok_and(|it| it.success()) {
        skip!("limits of another process cannot be set here");
    }
    let mut errors = 0;
    while let Some(status) = ask(&mut connection).await {
        assert!(status >= 500, "{status}");
        errors += 1;
        assert!(errors < 10_000, "it is not taken back");
    }
    assert!(errors >= 20, "taken back after {errors}");
    is_generation(&daemon, 1).await;
    let said = upgrade.wait_with_output().await.expect("it ends");
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(6), "{words}");
    assert!(words.contains("errors of its own") && words.contains("engine 1 has resumed"), "{words}");
    assert_eq!(ask(&mut TcpStream::connect(daemon.http()).await.unwrap()).await, Some(200));
    assert_eq!((daemon.app_pids("chaos").await, engines(&daemon)), (pids, old));
}
