//! Requests whose content has come with their head, over a connection that is open already: the upstream gets what it would
//! get by way of the parser, once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use harness::{Daemon, wait};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    CONFIG, Wire,
    handed_on::{answers_handed_on, record_of},
    lasting, timeless,
};

/// None, copied behind the head, just so, beside it, and nearly all that is read at once.
const SIZES: [usize; 6] = [0, 1, 4096, 4097, 10_240, 30_000];

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|it| b'a' + (it * 7 % 26) as u8).collect()
}

/// One request: its head's lines but those that are new each time, and its content.
async fn heard(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("heads are text");
    let length = head.lines().find_map(|it| it.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(format!("{}\n{}", lasting(&head).join("\n"), String::from_utf8(body).expect("text")))
}

/// Answers with what it was asked; `patience` requests on each connection, and then it closes instead.
async fn echo(patience: usize, asked: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                for number in 0.. {
                    let Some(text) = heard(&mut stream).await else { return };
                    asked.fetch_add(1, SeqCst);
                    if number >= patience {
                        return;
                    }
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                    stream.write_all(answer.as_bytes()).await.expect("it is open");
                }
            });
        }
    });
    address
}

async fn serving(patience: usize, security: &str) -> (Daemon, Arc<AtomicUsize>) {
    let asked = Arc::default();
    let site = format!("[backends.\"echo.test\"]\nurl = \"http://{}\"\n", echo(patience, Arc::clone(&asked)).await);
    let config = CONFIG.replace("[security.headers]", &format!("{security}[security.headers]"));
    (Daemon::start(&format!("{config}{site}")).await, asked)
}

impl Wire {
    async fn post(&mut self, before: &str, target: &str, fields: &str, body: &[u8]) -> (Vec<String>, String) {
        let length = body.len();
        let head =
            format!("{before}POST {target} HTTP/1.1\r\nhost: echo.test\r\n{fields}content-length: {length}\r\n\r\n");
        self.0.write_all(&[head.as_bytes(), body].concat()).await.expect("it is open");
        let (head, body) = self.answer().await;
        (head, String::from_utf8(body).expect("text"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_comes_with_its_head_goes_on_as_by_way_of_the_parser() {
    let (daemon, asked) = serving(usize::MAX, "").await;
    let fields = ["", "content-type: text/plain\r\ncookie: a=1\r\nx-forwarded-for: 1.1.1.1\r\nX-Own:  spaced \r\n"];
    for size in SIZES {
        for fields in fields {
            let body = content(size);
            // Opens a connection to the origin, or finds it open.
            let parsed = Wire::to(&daemon).await.post("\r\n", "/x?y=1", fields, &body).await;
            let before = answers_handed_on(&daemon).await;
            let mut wire = Wire::to(&daemon).await;
            let direct = wire.post("", "/x?y=1", fields, &body).await;
            assert_eq!(direct, parsed, "{size} {fields}");
            assert!(direct.1.ends_with(&String::from_utf8(body).expect("text")), "{size}");
            assert_eq!(answers_handed_on(&daemon).await, before + 1, "{size} {fields}");
            assert_eq!(wire.ask("", "files.test", "/said", "").await[0].1, b"said", "{size}: it is in step");
        }
    }
    assert_eq!(asked.load(SeqCst), 2 * 2 * SIZES.len());
    let log = wait::for_some(wait::SOON, "the records", async || {
        let log = daemon.read("log/access.log");
        (log.lines().filter(|it| it.contains("\"path\":\"/x\"")).count() == 4 * SIZES.len()).then_some(log)
    });
    let records: Vec<Value> = log.await.lines().filter_map(|it| serde_json::from_str(it).ok()).collect();
    let records: Vec<_> = records.iter().filter(|it| it["path"] == "/x").map(timeless).collect();
    for (at, pair) in records.chunks(2).enumerate() {
        assert_eq!(pair[0], pair[1]);
        assert_eq!((&pair[0]["method"], &pair[0]["bytes_received"]), (&"POST".into(), &SIZES[at / 2].into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_in_pieces_or_behind_other_requests_arrives_all_the_same() {
    let (daemon, _) = serving(usize::MAX, "").await;
    Wire::to(&daemon).await.post("", "/", "", b"first").await;
    let mut wire = Wire::to(&daemon).await;
    let head = |length: usize| format!("POST /p HTTP/1.1\r\nhost: echo.test\r\ncontent-length: {length}\r\n\r\n");
    // Three at once.
    let all = format!("{}one{}twoGET /said HTTP/1.1\r\nhost: files.test\r\n\r\n", head(3), head(3));
    wire.0.write_all(all.as_bytes()).await.expect("it is open");
    for expected in ["one", "two", "said"] {
        let (_, body) = wire.answer().await;
        assert!(String::from_utf8(body).expect("text").ends_with(expected), "{expected}");
    }
    // One byte short of whole: the rest comes when the head has been looked at.
    let body = content(5000);
    let whole = [head(5000).as_bytes(), &body].concat();
    for cut in [1, 4000, 5000] {
        let (first, rest) = whole.split_at(whole.len() - cut);
        wire.0.write_all(first).await.expect("it is open");
        wire.0.flush().await.expect("it is open");
        tokio::task::yield_now().await;
        wire.0.write_all(rest).await.expect("it is open");
        let (_, answer) = wire.answer().await;
        assert!(answer.ends_with(&body), "{cut}");
    }
    // Past what is read at once.
    assert!(
        wire.post("", "/", "", &content(100_000))
            .await
            .1
            .ends_with(&String::from_utf8(content(100_000)).expect("text"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_too_long_is_refused_the_same_way() {
    let (daemon, asked) = serving(usize::MAX, "[server.limits]\nmax_request_size = \"4KB\"\n").await;
    Wire::to(&daemon).await.post("", "/", "", b"first").await;
    let direct = Wire::to(&daemon).await.post("", "/", "", &content(5000)).await;
    let parsed = Wire::to(&daemon).await.post("\r\n", "/", "", &content(5000)).await;
    assert!(direct.0[0].starts_with("HTTP/1.1 413 "), "{direct:?}");
    assert_eq!((direct, asked.load(SeqCst)), (parsed, 1));
}

/// What a POST does may have been done.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_whose_connection_dies_is_not_sent_again() {
    let (daemon, asked) = serving(1, "").await;
    Wire::to(&daemon).await.post("", "/", "", b"first").await;
    let answer = Wire::to(&daemon).await.post("", "/", "", b"second").await;
    assert!(answer.0[0].starts_with("HTTP/1.1 502 "), "{answer:?}");
    assert_eq!(asked.load(SeqCst), 2);
    let record = record_of(&daemon, 1).await;
    assert_eq!((&record["status"], &record["bytes_received"]), (&502.into(), &6.into()), "{record}");
    // A GET may.
    Wire::to(&daemon).await.post("", "/", "", b"third").await;
    let again = Wire::to(&daemon).await.ask("", "echo.test", "/", "").await;
    assert!(again[0].0[0].starts_with("HTTP/1.1 200 "), "{again:?}");
    assert_eq!(asked.load(SeqCst), 5);
}

/// Answers each connection's first request, and refuses the second when it has seen its head.
async fn strict() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if heard(&mut stream).await.is_none() {
                continue;
            }
            let first = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst";
            stream.write_all(first).await.expect("it is open");
            if stream.read_u8().await.is_ok() {
                let refusal = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno";
                stream.write_all(refusal).await.expect("it is open");
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_before_it_has_read_is_heard() {
    let site = format!("[backends.\"echo.test\"]\nurl = \"http://{}\"\n", strict().await);
    let daemon = Daemon::start(&format!("{CONFIG}{site}")).await;
    for size in [5, 5000, 30_000] {
        for before in ["\r\n", ""] {
            assert_eq!(Wire::to(&daemon).await.post("", "/", "", b"first").await.1, "first");
            let (head, body) = Wire::to(&daemon).await.post(before, "/", "", &content(size)).await;
            assert!(head[0].starts_with("HTTP/1.1 413 ") && body == "no", "{size} {before:?}: {head:?} {body}");
        }
    }
}
