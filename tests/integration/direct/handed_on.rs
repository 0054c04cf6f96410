//! Plain requests that are forwarded over a connection which is open already: heads go line by line, long bodies from socket to
//! socket. Whatever is not plain about them goes on as any other.

use std::net::SocketAddr;

use harness::{Daemon, RawOrigin, raw_exchange, wait};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{ANSWERS, CONFIG, Wire, lasting, serving, timeless};

/// What can be handed on line by line, or only seems so.
const HANDED_ON: [(&str, &[u8]); 8] = [
    ("length", b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello"),
    ("hops", b"HTTP/1.1 200 OK\r\nconnection: Keep-Alive\r\nkeep-alive: timeout=5\r\nproxy-authorization: x\r\nupgrade: h2\r\ncontent-length: 2\r\n\r\nok"),
    ("named", b"HTTP/1.1 200 OK\r\nx-request-id: theirs\r\nserver: theirs\r\nx-frame-options: SAMEORIGIN\r\nx-powered-by: y\r\ncontent-length: 2\r\n\r\nok"),
    ("chunked", ANSWERS[2].1),
    ("odd", ANSWERS[9].1),
    ("empty", ANSWERS[1].1),
    ("failed", b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: image/png\r\ncontent-length: 2\r\n\r\nno"),
    ("image", b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 3\r\n\r\npng"),
];

/// What cannot, though the connection lasts.
const WEIGHED: [(&str, &[u8]); 7] = [
    ("not-modified", b"HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 9\r\n\r\n"),
    ("early", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"),
    ("text", b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"),
    ("twice", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok"),
    ("named-hop", b"HTTP/1.1 200 OK\r\nconnection: keep-alive, x-a\r\nx-a: b\r\ncontent-length: 2\r\n\r\nok"),
    ("no-content", b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"),
    ("events", b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\n: hi\n\r\n0\r\n\r\n"),
];

/// How many answers have been.
pub(super) async fn answers_handed_on(daemon: &Daemon) -> u64 {
    let page = harness::get(daemon.http(), "localhost", "/metrics").await.expect("it answers").text();
    let line =
        page.lines().find_map(|it| it.strip_prefix("miwid_handed_on_answers_total ")).expect("the counter is there");
    line.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_on_is_what_the_parser_would_have_given() {
    let mut origins = Vec::new();
    for (name, bytes) in HANDED_ON.into_iter().chain(WEIGHED) {
        origins.push((name, RawOrigin::lasting(bytes).await));
    }
    let daemon = serving(&origins).await;
    let wishes = [
        "",
        "accept-encoding: gzip\r\n",
        "cookie: a=1\r\nx-forwarded-for: 1.1.1.1\r\nx-own:  spaced \r\nkeep-alive: 5\r\n",
    ];
    for (at, (name, origin)) in origins.iter().enumerate() {
        let host = format!("{name}.test");
        for wish in wishes {
            // Opens a connection to the origin, which the next one finds.
            let parsed = Wire::to(&daemon).await.ask("\r\n", &host, "/x?y=1", wish).await;
            let before = answers_handed_on(&daemon).await;
            let mut wire = Wire::to(&daemon).await;
            let direct = wire.ask("", &host, "/x?y=1", wish).await;
            assert_eq!(direct, parsed, "{name} {wish}");
            let is_handed_on = answers_handed_on(&daemon).await > before;
            assert_eq!(is_handed_on, at < HANDED_ON.len(), "{name} {wish}");
            assert_eq!(wire.ask("", "files.test", "/said", "").await[0].1, b"said", "{name}: it is in step");
        }
        let mut heads: Vec<Vec<String>> = origin.heads().iter().map(|it| lasting(it)).collect();
        assert_eq!(heads.len(), 2 * wishes.len(), "{name}");
        heads.dedup();
        assert_eq!(heads.len(), wishes.len(), "{name}: {heads:#?}");
    }
    let log = wait::for_some(wait::SOON, "the records", async || {
        let log = daemon.read("log/access.log");
        (log.lines().filter(|it| it.contains("\"path\":\"/x\"")).count() == 2 * wishes.len() * origins.len())
            .then_some(log)
    });
    let records: Vec<Value> = log.await.lines().filter_map(|it| serde_json::from_str(it).ok()).collect();
    let of = |it: &&Value| it["path"] == "/x";
    let records: Vec<_> = records.iter().filter(of).map(timeless).collect();
    for pair in records.chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
}

/// Answers the first request of each connection, and does something else about the second.
async fn moody(second: Option<&'static [u8]>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                for answer in [Some(&b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst"[..]), second] {
                    if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                    match answer {
                        Some(bytes) => stream.write_all(bytes).await.expect("it is open"),
                        // Keeps it open until the other end does not.
                        None => _ = stream.read(&mut buffer).await,
                    }
                }
            });
        }
    });
    address
}

async fn warmed(second: Option<&'static [u8]>, server: &str) -> Daemon {
    let site = format!("[backends.\"moody.test\"]\nurl = \"http://{}\"\n", moody(second).await);
    let config = CONFIG.replace("workers = 1\n", &format!("workers = 1\n{server}"));
    let daemon = Daemon::start(&format!("{config}{site}")).await;
    assert_eq!(Wire::to(&daemon).await.ask("", "moody.test", "/", "").await[0].1, b"first");
    daemon
}

pub(super) async fn record_of(daemon: &Daemon, number: usize) -> Value {
    wait::for_some(wait::SOON, "the record", async || {
        daemon.read("log/access.log").lines().nth(number).and_then(|it| serde_json::from_str::<Value>(it).ok())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_dies_under_a_request_is_replaced() {
    for dying in [&b""[..], b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 200 O"] {
        let daemon = warmed(Some(dying), "").await;
        assert_eq!(Wire::to(&daemon).await.ask("", "moody.test", "/", "").await[0].1, b"first", "{dying:?}");
        let record = record_of(&daemon, 1).await;
        assert_eq!((&record["status"], &record["aborted"]), (&200.into(), &false.into()), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_begin_in_time_is_given_up() {
    let daemon = warmed(None, "request_timeout = \"1s\"\n").await;
    let answer = Wire::to(&daemon).await.ask("", "moody.test", "/", "").await;
    assert!(answer[0].0[0].starts_with("HTTP/1.1 504 "), "{answer:?}");
    let record = record_of(&daemon, 1).await;
    assert_eq!((&record["status"], &record["reason"]), (&504.into(), &"head-timeout".into()), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_an_open_connection_waiting_is_recorded() {
    for fields in ["", "connection: close\r\n"] {
        let daemon = warmed(None, "").await;
        let mut wire = Wire::to(&daemon).await;
        let head = format!("GET /gone HTTP/1.1\r\nhost: moody.test\r\n{fields}\r\n");
        wire.0.write_all(head.as_bytes()).await.expect("it is open");
        drop(wire);
        let record = record_of(&daemon, 1).await;
        assert_eq!((&record["status"], &record["aborted"]), (&499.into(), &true.into()), "{record}");
        assert_eq!(record["path"], "/gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_on_a_lasting_connection_is_recorded_so() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let daemon = warmed(Some(half), "").await;
    let answer = raw_exchange(daemon.http(), b"GET / HTTP/1.1\r\nhost: moody.test\r\n\r\n", wait::SOON).await;
    assert!(String::from_utf8_lossy(&answer).ends_with("\r\n\r\nhalf"), "it is closed and not completed");
    let record = record_of(&daemon, 1).await;
    assert_eq!((&record["aborted"], &record["bytes_sent"]), (&true.into(), &4.into()), "{record}");
}

/// Long enough to go from socket to socket.
const LONG: usize = 3_000_000;
/// More than sockets hold.
const HUGE: usize = 32 << 20;

fn long_answer(sent: usize) -> &'static [u8] {
    answer_of(LONG, sent)
}

fn answer_of(length: usize, sent: usize) -> &'static [u8] {
    let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    bytes.extend((0..sent).map(|it| (it * 31 % 251) as u8));
    bytes.leak()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_arrives_whole_and_leaves_both_connections_in_step() {
    let origins = [("long", RawOrigin::lasting(long_answer(LONG)).await)];
    let daemon = serving(&origins).await;
    let expected = &long_answer(LONG)[long_answer(0).len()..];
    let mut wire = Wire::to(&daemon).await;
    for round in 0..4 {
        let (head, body) = wire.ask("", "long.test", "/", "").await.remove(0);
        assert!(body == expected, "{round}: {head:?}, {} bytes", body.len());
        assert_eq!(wire.ask("", "files.test", "/said", "").await[0].1, b"said");
    }
    // The first had to open a connection.
    assert_eq!(answers_handed_on(&daemon).await, 3);
    // One that takes its time: the pipe is full more than once.
    wire.0.write_all(b"GET / HTTP/1.1\r\nhost: long.test\r\n\r\n").await.expect("it is open");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(wire.0.read_u8().await.expect("a head"));
    }
    let mut body = Vec::new();
    while body.len() < LONG {
        let piece = wire.bytes((LONG - body.len()).min(10_007)).await;
        body.extend(piece);
        tokio::task::yield_now().await;
    }
    assert!(body == expected);
    // Behind four, what was asked in between, and the metrics.
    let record = record_of(&daemon, 9).await;
    assert_eq!((&record["bytes_sent"], &record["aborted"]), (&LONG.into(), &false.into()), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_that_breaks_off_is_cut_and_recorded_so() {
    let daemon = warmed(Some(long_answer(LONG / 2)), "").await;
    let answer = raw_exchange(daemon.http(), b"GET / HTTP/1.1\r\nhost: moody.test\r\n\r\n", wait::SOON).await;
    let head = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!(answer.len() - head, LONG / 2);
    let record = record_of(&daemon, 1).await;
    assert_eq!((&record["aborted"], &record["bytes_sent"]), (&true.into(), &(LONG / 2).into()), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_long_answer_is_recorded_and_its_upstream_let_go() {
    let origins = [("long", RawOrigin::lasting(answer_of(HUGE, HUGE)).await)];
    let daemon = serving(&origins).await;
    Wire::to(&daemon).await.ask("", "long.test", "/", "").await;
    let mut wire = Wire::to(&daemon).await;
    wire.0.write_all(b"GET /left HTTP/1.1\r\nhost: long.test\r\n\r\n").await.expect("it is open");
    wire.bytes(100_000).await;
    drop(wire);
    let record = record_of(&daemon, 1).await;
    assert_eq!((&record["path"], &record["aborted"]), (&"/left".into(), &true.into()), "{record}");
    assert_eq!(Wire::to(&daemon).await.ask("", "long.test", "/", "").await[0].1.len(), HUGE);
}
