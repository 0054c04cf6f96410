//! What upstreams answer, encoded on its way: what may be touched, what not, and how streams flow.

use std::time::Duration;

use harness::{
    Daemon,
    h2::{DATA, END_HEADERS, END_STREAM, HEADERS, RawH2, block},
    raw_exchange, wait,
};
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{CODINGS, answer, ask, decoded_so_far, get, origin, plain, text, told};

const HTML: &str = "Content-Type: text/html\r\n";

async fn before(url: &str) -> Daemon {
    Daemon::start(&format!("[compression]\n[backends.\"a.test\"]\nurl = \"{url}\"\n")).await
}

/// The bytes of a chunked answer with this type.
fn chunked(kind: &str, pieces: &[&str]) -> String {
    let chunks: String = pieces.iter().map(|it| format!("{:x}\r\n{it}\r\n", it.len())).collect();
    format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nContent-Type: {kind}\r\n\r\n{chunks}0\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_coding_brings_the_same_bytes() {
    let (small, large) = (text(3000), text(400_000));
    for (answer, expected) in [
        (answer(HTML, &small), &small),
        (answer(HTML, &large), &large),
        (chunked("text/html", &[&small]), &small),
        (chunked("application/json; charset=utf-8", &[&large]), &large),
    ] {
        let daemon = before(&origin(answer).await).await;
        for coding in CODINGS {
            let reply = get(&daemon, "/", coding).await;
            assert_eq!((reply.status, reply.header("content-encoding")), (200, coding));
            assert_eq!(reply.header("vary"), "accept-encoding");
            assert!(plain(&reply) == *expected, "{coding}: other bytes");
            assert!(reply.body.len() < expected.len() / 2, "{coding}: {} of {}", reply.body.len(), expected.len());
        }
        let reply = get(&daemon, "/", "identity").await;
        assert_eq!((reply.header("content-encoding"), reply.header("vary")), ("", "accept-encoding"));
        assert!(reply.text() == *expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_accepts_decides() {
    let daemon = before(&origin(answer(HTML, &text(3000))).await).await;
    for (accept, expected) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate", "gzip"),
        ("deflate", ""),
        ("identity", ""),
        ("", ""),
        ("*", "zstd"),
        ("*;q=0", ""),
        ("*;q=0.5, zstd;q=0", "br"),
        ("gzip;q=1.0, br;q=0.9, zstd;q=0.8", "gzip"),
        ("gzip;q=0.1, br;q=0.2, zstd;q=0.3", "zstd"),
        ("gzip;q=0.1, br;q=0.2, zstd;q=0.15", "br"),
        ("gzip; q=0.5, br; q=0.5", "br"),
        ("gzip;q=0", ""),
        ("gzip;q=0.0", ""),
        ("gzip;q=0.001", "gzip"),
        ("gzip;q=0, br", "br"),
        ("zstd;q=0, *", "br"),
        ("zstd;q=0, br;q=0, *;q=0.2", "gzip"),
        ("identity;q=0, gzip", "gzip"),
        ("identity;q=0", ""),
        ("identity;q=1, gzip;q=0.5", ""),
        ("identity;q=0.5, gzip;q=1", "gzip"),
        ("gzip;q=2", ""),
        ("gzip;q=nonsense", ""),
        ("br;q=0.9;x=y", "br"),
        ("gzip;level=1;q=0.2, br;q=0.1", "gzip"),
        (" , ,gzip, ,", "gzip"),
        ("brotli, zstandard", ""),
        ("gzip\t;\tq=0.3", "gzip"),
    ] {
        let reply = get(&daemon, "/", accept).await;
        assert_eq!(reply.header("content-encoding"), expected, "{accept:?}");
        assert_eq!(reply.header("vary"), "accept-encoding", "{accept:?}");
        assert!(plain(&reply) == text(3000), "{accept:?}");
    }
    let reply = ask(&daemon, Method::GET, "/", &[]).await;
    assert_eq!((reply.header("content-encoding"), reply.header("vary")), ("", "accept-encoding"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_to_touch_is_left_alone() {
    let body = text(5000);
    let long = |fields: &str| answer(fields, &body);
    let status = |status: &str, fields: &str| long(fields).replacen("200 OK", status, 1);
    for (what, answer, coding, vary) in [
        ("plain", long(HTML), "gzip", "accept-encoding"),
        ("an error page", status("500 Oh", HTML), "gzip", "accept-encoding"),
        ("no type", long(""), "", ""),
        ("an image", long("Content-Type: image/png\r\n"), "", ""),
        (
            "encoded already",
            long(&format!("{HTML}Content-Encoding: x-own\r\nVary: Accept-Encoding\r\n")),
            "x-own",
            "Accept-Encoding",
        ),
        ("no-transform", long(&format!("{HTML}Cache-Control: public, no-transform\r\n")), "", ""),
        ("a digest", long(&format!("{HTML}Content-Digest: sha-256=:AAAA:\r\n")), "", ""),
        ("a part", status("206 Part", &format!("{HTML}Content-Range: bytes 0-4999/9999\r\n")), "", "accept-encoding"),
        ("grpc", long("Content-Type: application/grpc-web+proto\r\n"), "", ""),
        ("too small", super::answer(HTML, &text(1023)), "", ""),
        ("just big enough", super::answer(HTML, &text(1024)), "gzip", "accept-encoding"),
        ("nothing", super::answer(HTML, ""), "", ""),
    ] {
        let daemon = before(&origin(answer).await).await;
        let reply = get(&daemon, "/", "gzip").await;
        assert_eq!((reply.header("content-encoding"), reply.header("vary")), (coding, vary), "{what}");
        if coding.is_empty() {
            assert_eq!(reply.header("content-length"), reply.body.len().to_string(), "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_tells_what_get_tells() {
    for fields in
        ["ETag: \"v1\"\r\nAccept-Ranges: bytes\r\nVary: Cookie\r\n", "Cache-Control: no-transform\r\nETag: \"v1\"\r\n"]
    {
        for size in [100, 3000, 200_000] {
            let daemon = before(&origin(answer(&format!("{HTML}{fields}"), &text(size))).await).await;
            let got = get(&daemon, "/", "gzip").await;
            let head = ask(&daemon, Method::HEAD, "/", &[("accept-encoding", "gzip")]).await;
            assert_eq!(told(&head.headers), told(&got.headers), "{fields} {size}");
            assert!(head.body.is_empty());
            let encoded = !got.header("content-encoding").is_empty();
            assert_eq!(encoded, size > 1024 && !fields.contains("no-transform"));
            assert_eq!(got.header("etag"), if encoded { "W/\"v1\"" } else { "\"v1\"" });
            assert_eq!(encoded, !head.headers.contains_key("content-length"), "{fields} {size}");
            assert_eq!(got.header("accept-ranges").is_empty(), encoded || !fields.contains("Accept-Ranges"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_names_the_tag_that_the_client_holds() {
    let not_modified = "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nConnection: close\r\n\r\n";
    let daemon = before(&origin(not_modified).await).await;
    for (held, told) in [("W/\"v1\"", "W/\"v1\""), ("\"v1\"", "\"v1\"")] {
        let lines = [("accept-encoding", "gzip"), ("if-none-match", held)];
        let reply = ask(&daemon, Method::GET, "/", &lines).await;
        assert_eq!((reply.status, reply.header("etag"), reply.header("vary")), (304, told, "accept-encoding"));
        assert_eq!(reply.header("content-encoding"), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_range_gets_plain_bytes() {
    let daemon = before(&origin(answer(HTML, &text(5000))).await).await;
    let lines = [("accept-encoding", "gzip"), ("range", "bytes=0-10")];
    let reply = ask(&daemon, Method::GET, "/", &lines).await;
    assert_eq!((reply.status, reply.header("content-encoding"), reply.body.len()), (200, "", 5000));
    assert_eq!(reply.header("vary"), "accept-encoding");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_gets_it_to_the_end_of_the_connection() {
    let daemon = before(&origin(chunked("text/plain", &[&text(100_000)])).await).await;
    let request = b"GET / HTTP/1.0\r\nHost: a.test\r\nAccept-Encoding: gzip\r\n\r\n";
    let answer = raw_exchange(daemon.http(), request, wait::SOON).await;
    let split = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&answer[..split]).to_lowercase();
    assert!(head.contains("content-encoding: gzip") && !head.contains("transfer-encoding"), "{head}");
    assert!(super::decoded("gzip", &answer[split..]) == text(100_000).into_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_does_not_look_whole() {
    let whole = answer(HTML, &text(300_000));
    let daemon = before(&origin(&whole[..whole.len() - 1000]).await).await;
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: gzip\r\n\r\n";
    let answer = raw_exchange(daemon.http(), request, wait::SOON).await;
    assert!(answer.windows(22).any(|it| it.eq_ignore_ascii_case(b"content-encoding: gzip")));
    assert!(!answer.ends_with(b"0\r\n\r\n"), "the last chunk says that all is there");
}

/// One client and one upstream connection through the daemon, both in our hands.
struct Stream {
    client: TcpStream,
    upstream: TcpStream,
    got: Vec<u8>,
    _daemon: Daemon,
}

impl Stream {
    async fn open(coding: &str, kind: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let daemon = before(&format!("http://{}", listener.local_addr().unwrap())).await;
        let mut client = TcpStream::connect(daemon.http()).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: {coding}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut upstream, _) = timeout(wait::SOON, listener.accept()).await.unwrap().unwrap();
        let mut chunk = [0; 4096];
        assert!(upstream.read(&mut chunk).await.unwrap() > 0);
        let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: {kind}\r\n\r\n");
        upstream.write_all(head.as_bytes()).await.unwrap();
        Self { client, upstream, got: Vec::new(), _daemon: daemon }
    }

    async fn send(&mut self, event: &str) {
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        self.upstream.write_all(chunk.as_bytes()).await.unwrap();
    }

    /// Reads until the decoded body is `expected`.
    async fn until(&mut self, coding: &str, expected: &str) {
        let mut chunk = [0; 4096];
        while decoded_so_far(coding, &unchunked(&self.got)) != expected {
            let count =
                timeout(wait::SOON, self.client.read(&mut chunk)).await.expect("each event comes at once").unwrap();
            assert!(count > 0, "ended early");
            self.got.extend_from_slice(&chunk[..count]);
        }
    }
}

/// The payload of the chunks that have come so far.
fn unchunked(answer: &[u8]) -> Vec<u8> {
    let Some(head) = answer.windows(4).position(|it| it == b"\r\n\r\n") else { return Vec::new() };
    let (mut rest, mut out) = (&answer[head + 4..], Vec::new());
    while let Some(line) = rest.windows(2).position(|it| it == b"\r\n") {
        let size = usize::from_str_radix(str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 || rest.len() < line + 2 + size + 2 {
            break;
        }
        out.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one() {
    for kind in ["text/event-stream", "text/plain"] {
        for coding in CODINGS {
            let mut stream = Stream::open(coding, kind).await;
            let mut expected = String::new();
            for number in 0..10 {
                let event = format!("data: event {number} of {coding}\n\n");
                expected.push_str(&event);
                stream.send(&event).await;
                // The next is sent only when this one was read.
                stream.until(coding, &expected).await;
            }
            stream.upstream.write_all(b"0\r\n\r\n").await.unwrap();
            while !stream.got.ends_with(b"0\r\n\r\n") {
                let mut chunk = [0; 4096];
                let count = timeout(wait::SOON, stream.client.read(&mut chunk)).await.unwrap().unwrap();
                assert!(count > 0, "ended early");
                stream.got.extend_from_slice(&chunk[..count]);
            }
            assert_eq!(super::decoded(coding, &unchunked(&stream.got)), expected.as_bytes(), "{kind} {coding}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one_over_http_2_too() {
    for coding in CODINGS {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let daemon = before(&format!("http://{}", listener.local_addr().unwrap())).await;
        let mut client = RawH2::connect(daemon.http()).await;
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "a.test"),
            (":path", "/"),
            ("accept-encoding", coding),
        ];
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).await.unwrap();
        let (mut upstream, _) = timeout(wait::SOON, listener.accept()).await.unwrap().unwrap();
        assert!(upstream.read(&mut [0; 4096]).await.unwrap() > 0);
        upstream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n")
            .await
            .unwrap();
        let (mut got, mut expected) = (Vec::new(), String::new());
        for number in 0..5 {
            let event = format!("data: event {number}\n\n");
            expected.push_str(&event);
            upstream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.unwrap();
            while decoded_so_far(coding, &got) != expected {
                got.extend(client.until(DATA).await.expect("each event comes at once").payload);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_no_answer_to_encode() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\
                     Content-Type: text/plain\r\n\r\nas it is";
    let daemon = before(&origin(switching).await).await;
    let request =
        b"GET / HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: gzip\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let answer = raw_exchange(daemon.http(), request, wait::SOON).await;
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.starts_with("http/1.1 101") && !answer.contains("gzip") && answer.ends_with("as it is"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_come_after_the_encoded_body() {
    let body = text(5000);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n{HTML}\r\n{:x}\r\n{body}\r\n0\r\nx-sum: 7\r\n\r\n",
        body.len()
    );
    let daemon = before(&origin(answer).await).await;
    let request =
        b"GET / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nAccept-Encoding: br\r\nConnection: close, TE\r\n\r\n";
    let answer = raw_exchange(daemon.http(), request, Duration::from_secs(5)).await;
    assert!(super::decoded("br", &unchunked(&answer)) == body.into_bytes());
    assert!(String::from_utf8_lossy(&answer).to_lowercase().ends_with("0\r\nx-sum: 7\r\n\r\n"));
}
