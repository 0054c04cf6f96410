//! Compressed answers as clients get them: decoded here by libraries, and once by curl's own decoders.

use std::io::Read;

use bytes::Bytes;
use harness::{Daemon, Reply, request, wait};
use http::{HeaderMap, Method, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

mod files;
mod proxied;
mod versions;

const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

/// Lines that are alike, but not the same.
fn text(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 40);
    for number in 0_u64.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(&format!("line {number} says {}\n", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 9973));
    }
    text.truncate(bytes);
    text
}

/// All of `bytes` decoded; an error when they do not end as they should.
fn decoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let read = decoder(coding, bytes).read_to_end(&mut out);
    read.unwrap_or_else(|error| panic!("{coding}: {error} after {} bytes", out.len()));
    out
}

/// What can be decoded of a beginning.
fn decoded_so_far(coding: &str, bytes: &[u8]) -> String {
    let (mut reader, mut out, mut chunk) = (decoder(coding, bytes), Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = reader.read(&mut chunk) {
        out.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8(out).unwrap()
}

fn decoder<'a>(coding: &str, bytes: &'a [u8]) -> Box<dyn Read + 'a> {
    match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        "zstd" => Box::new(zstd::stream::read::Decoder::with_buffer(bytes).unwrap()),
        "" => Box::new(bytes),
        other => panic!("no such coding: {other}"),
    }
}

async fn ask(daemon: &Daemon, method: Method, path: &str, lines: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path).header("host", "a.test");
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    daemon.request(request.body(Bytes::new()).unwrap()).await
}

async fn get(daemon: &Daemon, path: &str, accept: &str) -> Reply {
    ask(daemon, Method::GET, path, &[("accept-encoding", accept)]).await
}

/// The body, decoded as the answer says.
fn plain(reply: &Reply) -> String {
    String::from_utf8(decoded(reply.header("content-encoding"), &reply.body)).unwrap()
}

/// What GET and HEAD must agree on.
fn told(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in ["content-length", "transfer-encoding", "date", "x-request-id"] {
        headers.remove(name);
    }
    headers
}

/// An origin that answers each connection with these bytes and closes it.
async fn origin(answer: impl Into<Vec<u8>>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (address, answer) = (listener.local_addr().unwrap(), answer.into());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let (mut head, mut chunk) = (Vec::new(), [0; 4096]);
                while !head.windows(4).any(|it| it == b"\r\n\r\n") {
                    match stream.read(&mut chunk).await {
                        Ok(count @ 1..) => head.extend_from_slice(&chunk[..count]),
                        _ => return,
                    }
                }
                let answer = if head.starts_with(b"HEAD ") { without_body(&answer) } else { &answer };
                let _ = stream.write_all(answer).await;
            });
        }
    });
    format!("http://{address}")
}

fn without_body(answer: &[u8]) -> &[u8] {
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    &answer[..end + 4]
}

/// A whole answer with a length.
fn answer(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_and_routes_have_their_own_rules() {
    let builder = Daemon::builder(
        r#"
[compression]
algorithms = ["gzip"]
[backends."a.test"]
root = "{dir}/www"
[backends."a.test".routes."/plain"]
root = "{dir}/www"
strip_prefix = true
compression = { enabled = false }
[backends."a.test".routes."/small"]
root = "{dir}/www"
strip_prefix = true
compression = { min_size = "10B", algorithms = ["br", "gzip"] }
[backends."b.test"]
root = "{dir}/www"
compression = { types = ["image/png"] }
"#,
    );
    let daemon = builder.file("www/a.txt", &text(5000)).file("www/b.txt", &text(500)).start().await;
    let coding = async |host: &str, path: &str| {
        let request = Request::get(path).header("host", host).header("accept-encoding", "zstd, br, gzip");
        let reply = request_of(&daemon, request).await;
        reply.header("content-encoding").to_owned()
    };
    assert_eq!(coding("a.test", "/a.txt").await, "gzip");
    assert_eq!(coding("a.test", "/b.txt").await, "");
    assert_eq!(coding("a.test", "/plain/a.txt").await, "");
    assert_eq!(coding("a.test", "/small/a.txt").await, "br");
    assert_eq!(coding("a.test", "/small/b.txt").await, "br");
    assert_eq!(coding("b.test", "/a.txt").await, "");
}

async fn request_of(daemon: &Daemon, builder: http::request::Builder) -> Reply {
    request(daemon.http(), builder.body(Bytes::new()).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fixed_answers_are_encoded_and_their_heads_tell_it() {
    for size in [100, 3000, 100_000] {
        let respond = format!("respond = {{ status = 200, body = \"{}\" }}", text(size).replace('\n', "\\n"));
        let daemon = Daemon::start(&format!("[compression]\n[backends.\"a.test\"]\n{respond}\n")).await;
        let got = get(&daemon, "/", "br").await;
        assert_eq!(got.header("content-encoding"), if size > 1024 { "br" } else { "" });
        assert!(plain(&got) == text(size), "{size}");
        let head = ask(&daemon, Method::HEAD, "/", &[("accept-encoding", "br")]).await;
        assert_eq!(told(&head.headers), told(&got.headers), "{size}");
        let length = head.header("content-length");
        assert!(length.is_empty() || length == got.body.len().to_string(), "{size}: {length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_table_nothing_is_encoded_and_a_reload_brings_it() {
    let config = "[backends.\"a.test\"]\nroot = \"{dir}/www\"\n";
    let daemon = Daemon::builder(config).file("www/a.txt", &text(5000)).start().await;
    let reply = get(&daemon, "/a.txt", "gzip").await;
    assert_eq!((reply.header("content-encoding"), reply.header("vary"), reply.body.len()), ("", "", 5000));
    daemon.rewrite_config(&format!("{config}[compression]\n"));
    assert_eq!(daemon.reload().await.status, 0);
    wait::until(wait::SOON, "the answer is encoded", async || {
        get(&daemon, "/a.txt", "gzip").await.header("content-encoding") == "gzip"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_pages_are_encoded_too() {
    let config = "[compression]\n[metrics]\nenabled = true\n[backends.\"a.test\"]\nroot = \"{dir}\"\n";
    let daemon = Daemon::start(config).await;
    let local = Request::get("/metrics").header("host", "localhost").header("accept-encoding", "gzip");
    let reply = request_of(&daemon, local).await;
    assert_eq!((reply.status, reply.header("content-encoding")), (200, "gzip"));
    assert!(plain(&reply).contains("# TYPE http_requests_total counter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_counts_what_was_sent() {
    let config = "[compression]\n[backends.\"a.test\"]\nroot = \"{dir}/www\"\n";
    let daemon = Daemon::builder(config).file("www/a.txt", &text(300_000)).start().await;
    let reply = get(&daemon, "/a.txt", "zstd").await;
    assert_eq!(plain(&reply), text(300_000));
    let sent = format!("\"bytes_sent\":{}", reply.body.len());
    wait::until(wait::SOON, "the record", async || daemon.read("access.log").contains(&sent)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_were_compressed_are_counted_by_their_coding() {
    let body = "all the same ".repeat(300);
    let site = format!("[backends.\"a.test\"]\nrespond = {{ status = 200, body = \"{body}\" }}\n");
    let daemon = Daemon::start(&format!("[compression]\n{site}")).await;
    for (accepted, times) in [("zstd", 1), ("br", 2), ("gzip", 3), ("identity", 4)] {
        for _ in 0..times {
            ask(&daemon, Method::GET, "/", &[("accept-encoding", accepted)]).await;
        }
    }
    let page = daemon.get("/metrics").await.text();
    for (coding, times) in [("zstd", 1), ("br", 2), ("gzip", 3)] {
        let line = format!("miwid_compressed_answers_total{{coding=\"{coding}\"}} {times}");
        assert!(page.lines().any(|it| it == line), "{line} is missing in {page}");
    }
}
