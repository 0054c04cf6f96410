//! Client connections over time: how long one may idle or dawdle, how many there may be, and how they end.

use std::time::Duration;

use harness::{Daemon, Origin, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const FILES: &str = "[backends.\"localhost\"]\nroot = \"{dir}\"\n";

fn with_server(keys: &str) -> String {
    format!("[server]\nbind = [\"127.0.0.1\"]\nhttp_port = {{port}}\n{keys}\n{FILES}")
}

/// All that comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = tokio::time::timeout(wait::SOON, stream.read_to_end(&mut all)).await;
    read.expect("the daemon closes the connection").expect("it closes it in order");
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads one answer of the file `a` and leaves the connection open.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello") {
        let mut chunk = [0; 1024];
        let n = tokio::time::timeout(wait::SOON, stream.read(&mut chunk)).await.expect("an answer").unwrap();
        assert!(n > 0, "closed after {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_answered_408() {
    let daemon = Daemon::builder(&with_server("request_timeout = \"300ms\"")).file("a", "hello").start().await;
    let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: loc").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_head_that_never_ends_is_answered_408_too() {
    let daemon = Daemon::builder(&with_server("request_timeout = \"300ms\"")).file("a", "hello").start().await;
    let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
    ask(&mut stream).await;
    stream.write_all(b"GET /a HT").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_without_a_word() {
    let daemon = Daemon::builder(&with_server("keepalive_timeout = \"300ms\"")).file("a", "hello").start().await;
    let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_is_answered_408() {
    let origin = Origin::start("one").await;
    let config = format!(
        "[server]\nbind = [\"127.0.0.1\"]\nhttp_port = {{port}}\nrequest_timeout = \"300ms\"\n\
         [backends.\"localhost\"]\nurl = \"http://{}\"\n",
        origin.address()
    );
    let daemon = Daemon::start(&config).await;
    let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nabc").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("miwi-reason: body-timeout"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_limit_the_backlog_holds_and_nobody_is_refused() {
    let daemon = Daemon::builder(&with_server("max_connections = 2")).file("a", "hello").start().await;
    let mut first = TcpStream::connect(daemon.http()).await.unwrap();
    ask(&mut first).await;
    let mut second = TcpStream::connect(daemon.http()).await.unwrap();
    ask(&mut second).await;
    let mut third = TcpStream::connect(daemon.http()).await.expect("the kernel takes it");
    third.write_all(b"GET /a HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(300), third.read(&mut byte)).await;
    assert!(early.is_err(), "the third waits: {early:?}");
    drop(first);
    tokio::time::timeout(wait::SOON, third.read_exact(&mut byte)).await.expect("its turn has come").unwrap();
    assert_eq!(&byte, b"H");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_the_descriptors_cannot_carry_is_refused_with_the_figures() {
    let refusal = Daemon::builder(&with_server("max_connections = 100000000")).refusal().await;
    assert_eq!(refusal.code, Some(6), "{refusal:?}");
    assert!(refusal.stderr.contains("needs 200000512 descriptors"), "{refusal:?}");
    assert!(refusal.stderr.contains("hint: "), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let daemon = Daemon::builder(FILES).file("a", "hello").file("b", "world").start().await;
    let both =
        "GET /a HTTP/1.1\r\nhost: localhost\r\n\r\nGET /b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = String::from_utf8(daemon.raw(both).await).unwrap();
    let (a, b) = (answer.find("hello").expect("the first"), answer.find("world").expect("the second"));
    assert!(a < b, "{answer}");
}
