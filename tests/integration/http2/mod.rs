//! HTTP/2 in raw frames: wrong ones get the error of RFC 9113, floods end the connection, and a WebSocket comes through.

mod bombs;
mod drain;
mod letter;
mod time;

use harness::{
    Daemon, get,
    h2::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, RawH2, SETTINGS, block, frame},
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const FILES: &str = "[backends.\"localhost\"]\nroot = \"{dir}\"\n";
const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/a")];

/// How many connections were ended for `reason`, or by the HTTP/2 library, which has limits of its own.
async fn cut(daemon: &Daemon, reason: &str) -> u64 {
    let metrics = get(daemon.address(2), "localhost", "/metrics").await.expect("the admin listener answers").text();
    let count = |reason: &str| {
        let sample = format!("miwid_connections_cut_total{{reason=\"{reason}\"}} ");
        metrics.lines().find_map(|it| it.strip_prefix(&sample)).map_or(0, |it| it.parse().expect("a count"))
    };
    count(reason) + count("http2-calm")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_told_to_calm_down_and_counted_and_others_are_served() {
    let daemon = Daemon::builder(&format!("[admin]\nlisten = \"127.0.0.1:{{port2}}\"\n{FILES}"))
        .file("a", "hello")
        .start()
        .await;
    let opened = |flags| frame(HEADERS, flags, 1, &block(&[&[(":method", "POST")], &GET[1..]].concat()));
    let reset = |stream| {
        let asked = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET));
        [asked, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    let floods = [
        ("ping-flood", frame(PING, 0, 0, &[0; 8]).repeat(200)),
        ("settings-flood", frame(SETTINGS, 0, 0, b"").repeat(200)),
        ("priority-flood", frame(2, 0, 1, &[0, 0, 0, 3, 1]).repeat(2000)),
        ("window-flood", frame(8, 0, 0, &[0, 0, 0, 1]).repeat(40_000)),
        ("empty-frames", [opened(END_HEADERS), frame(DATA, 0, 1, b"").repeat(200)].concat()),
        ("continuation-flood", [opened(0), frame(9, 0, 1, b"").repeat(200)].concat()),
        ("rapid-reset", (1..4001).step_by(2).flat_map(reset).collect()),
    ];
    for (reason, bytes) in floods {
        let before = cut(&daemon, reason).await;
        let mut client = RawH2::connect(daemon.http()).await;
        client.until(SETTINGS).await.expect("the daemon's settings");
        // The daemon may close before it has read it all.
        let _ = client.bytes(&bytes).await;
        let goaway = client.until(GOAWAY).await.unwrap_or_else(|| panic!("{reason}: no GOAWAY"));
        assert_eq!(goaway.payload[4..8], ENHANCE_YOUR_CALM, "{reason}");
        assert_eq!(client.until(GOAWAY).await, None, "{reason}: the connection ends");
        wait::until(wait::SOON, reason, async || cut(&daemon, reason).await == before + 1).await;
        assert_eq!(daemon.get("/a").await.text(), "hello", "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_is_an_error_of_its_stream_alone() {
    let daemon = Daemon::builder(FILES).file("a", "hello").start().await;
    let with = |extra: &[(&'static str, &'static str)]| block(&[&GET[..], extra].concat());
    let malformed = [
        with(&[("connection", "keep-alive")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("te", "gzip")]),
        with(&[("x", "1"), (":path", "/b")]),
        with(&[(":status", "200")]),
        block(&GET[..3]),
        block(&GET[1..]),
    ];
    for (index, head) in malformed.iter().enumerate() {
        let mut client = RawH2::connect(daemon.http()).await;
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, head).await.unwrap();
        let reset = client.until(RST_STREAM).await.unwrap_or_else(|| panic!("{index}: no RST_STREAM"));
        assert_eq!((reset.stream, &reset.payload[..]), (1, &PROTOCOL_ERROR[..]), "{index}");
        client.send(HEADERS, END_HEADERS | END_STREAM, 3, &block(&GET)).await.unwrap();
        assert_eq!(client.until(DATA).await.expect("the next stream is answered").payload, b"hello", "{index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_cannot_be_ends_the_connection() {
    let daemon = Daemon::builder(FILES).file("a", "hello").start().await;
    for name in ["X-Upper", ":unknown"] {
        let mut client = RawH2::connect(daemon.http()).await;
        let head = block(&[&GET[..], &[(name, "1")]].concat());
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &head).await.unwrap();
        // RFC 9113, 5.4.2: a stream's error may end the whole connection.
        assert!(client.until(GOAWAY).await.is_some(), "{name}");
        assert_eq!(client.until(DATA).await, None, "{name}");
    }
}

/// Answers a WebSocket's opening with a 101 and sends back what follows; says what it was asked.
async fn echo() -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let origin = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
        String::from_utf8(head).unwrap().to_lowercase()
    });
    (url, origin)
}

fn connect(protocol: &str) -> Vec<u8> {
    block(&[
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/ws"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_over_http2_reaches_an_http1_origin() {
    let (url, origin) = echo().await;
    let daemon = Daemon::start(&format!("[backends.\"localhost\"]\nurl = \"{url}\"\n")).await;
    let mut client = RawH2::connect(daemon.http()).await;
    let settings = client.until(SETTINGS).await.expect("the daemon's settings").payload;
    assert!(settings.chunks(6).any(|it| it == [0, 8, 0, 0, 0, 1]), "extended CONNECT is offered: {settings:?}");
    client.send(HEADERS, END_HEADERS, 1, &connect("websocket")).await.unwrap();
    let head = client.until(HEADERS).await.expect("an answer");
    assert_eq!((head.payload[0], head.flags & END_STREAM), (0x88, 0), "a 200 that stays open");
    let message = b"\x81\x85\x01\x02\x03\x04hello";
    client.send(DATA, 0, 1, message).await.unwrap();
    assert_eq!(client.until(DATA).await.expect("the echo").payload, message, "bytes pass as they are");
    client.send(DATA, END_STREAM, 1, b"").await.unwrap();
    let end = client.until(DATA).await.expect("the origin's end");
    assert_eq!((end.payload.len(), end.flags & END_STREAM), (0, END_STREAM));
    let asked = origin.await.unwrap();
    assert!(asked.starts_with("get /ws http/1.1\r\n"), "{asked}");
    for line in
        ["upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13", "sec-websocket-protocol: chat"]
    {
        assert!(asked.contains(&format!("{line}\r\n")), "{line} is missing in {asked}");
    }
    let key = asked.split("sec-websocket-key: ").nth(1).and_then(|it| it.lines().next()).unwrap_or_default();
    assert_eq!(key.len(), 24, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_than_websocket_is_not_implemented() {
    let (url, origin) = echo().await;
    let daemon = Daemon::start(&format!("[backends.\"localhost\"]\nurl = \"{url}\"\n")).await;
    let mut client = RawH2::connect(daemon.http()).await;
    client.send(HEADERS, END_HEADERS, 1, &connect("connect-udp")).await.unwrap();
    let head = client.until(HEADERS).await.expect("an answer");
    // `:status` by its index, then 501 in Huffman's code.
    assert_eq!(head.payload[..4], [0x48, 0x82, 0x6c, 0x01], "{head:?}");
    origin.abort();
}
