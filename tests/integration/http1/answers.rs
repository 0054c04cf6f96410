//! What a client of HTTP/1.1 reads behind the proxy, byte for byte: where an answer ends must be beyond doubt, whatever the
//! upstream put there. Each client sends two requests at once, so that a body too much would show as the second answer.

use std::time::Duration;

use harness::{Daemon, RawOrigin};

const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-from: origin\r\n\r\n";
const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\nx-from: origin\r\n\r\n";
const NO_CONTENT_WITH_A_LENGTH: &[u8] = b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\nx-from: origin\r\n\r\n";
const NO_CONTENT_WITH_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\nx-from: origin\r\n\r\nhello";
const UNCHANGED: &[u8] = b"HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\nx-from: origin\r\n\r\n";
const UNCHANGED_WITH_A_LENGTH: &[u8] =
    b"HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncontent-length: 5\r\nx-from: origin\r\n\r\n";
const TO_A_HEAD_IN_CHUNKS: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-from: origin\r\n\r\n";
const WITH_TRAILERS: &[u8] =
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nx-from: origin\r\n\r\n\
      5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n";

/// Two answers to two requests, or what came instead.
async fn answers(origin: &'static [u8], method: &str, headers: &str) -> String {
    let origin = RawOrigin::start(origin).await;
    let daemon = Daemon::start(&format!("[backends.\"localhost\"]\nurl = \"{}\"\n", origin.url())).await;
    let ask = |last: &str| format!("{method} / HTTP/1.1\r\nhost: localhost\r\n{headers}{last}\r\n");
    let both = format!("{}{}", ask(""), ask("connection: close\r\n"));
    let read = harness::raw_exchange(daemon.http(), both.as_bytes(), Duration::from_secs(20)).await;
    String::from_utf8(read).expect("text").to_ascii_lowercase()
}

/// The heads of both answers; panics when there is anything else.
fn heads(read: &str) -> [&str; 2] {
    let parts: Vec<&str> = read.split("\r\n\r\n").collect();
    assert!(parts.len() == 3 && parts[2].is_empty(), "{read}");
    assert!(parts[..2].iter().all(|it| it.starts_with("http/1.1 ") && it.contains("x-from: origin")), "{read}");
    [parts[0], parts[1]]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_may_have_no_body_has_none() {
    for (origin, method, kept) in [
        (LENGTH, "HEAD", Some("content-length: 5")),
        (TO_A_HEAD_IN_CHUNKS, "HEAD", None),
        (NO_CONTENT, "GET", None),
        (NO_CONTENT_WITH_A_LENGTH, "GET", None),
        (NO_CONTENT_WITH_CONTENT, "GET", None),
        (NO_CONTENT, "HEAD", None),
        (UNCHANGED, "GET", Some("etag: \"1\"")),
        (UNCHANGED_WITH_A_LENGTH, "GET", Some("etag: \"1\"")),
    ] {
        let read = answers(origin, method, "").await;
        for head in heads(&read) {
            assert!(kept.is_none_or(|it| head.contains(it)), "{method} {origin:?}: {head}");
            if head.starts_with("http/1.1 204") {
                // RFC 9110, 8.6, and RFC 9112, 6.1.
                assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_answer_reach_a_client_that_takes_them() {
    let read = answers(WITH_TRAILERS, "GET", "te: trailers\r\n").await;
    let end = "5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n";
    assert!(read.matches(end).count() == 2 && read.ends_with(end), "{read}");
    let read = answers(WITH_TRAILERS, "GET", "").await;
    let end = "5\r\nhello\r\n0\r\n\r\n";
    assert!(read.matches(end).count() == 2 && read.ends_with(end), "without being asked for, none come: {read}");
}
