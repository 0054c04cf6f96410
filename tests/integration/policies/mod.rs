//! `[security]` on real requests: who may ask, how often, and from which other sites.

use harness::{Daemon, wait};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::cloudflare::peer::{ask, from, get};

mod access;
mod cors;
mod csrf;
mod rates;

/// Peers stand anywhere; metrics at `{port2}`.
const SERVER: &str = "[server]\nworkers = 2\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\n\
                      [admin]\nlisten = \"127.0.0.1:{port2}\"\n";

/// Status and reason of one answer on a connection of its own.
async fn asked(daemon: &Daemon, peer: &str, host: &str, path: &str) -> (u16, String) {
    told(daemon, peer, &get(path, host, "")).await
}

async fn told(daemon: &Daemon, peer: &str, request: &str) -> (u16, String) {
    let (head, _) = ask(&mut from(daemon, 1, peer).await, request).await.expect("it is answered");
    (status(&head), field(&head, "miwi-reason").to_owned())
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("no status: {head}"))
}

/// A field of a head in lower case, or nothing.
fn field<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

/// The same over HTTP/2, `count` requests on one connection.
async fn asked_over_http2(daemon: &Daemon, peer: &str, host: &str, count: usize) -> Vec<(u16, String)> {
    let stream = from(daemon, 1, peer).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    let driver = tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..count {
        let request = http::Request::get(format!("http://{host}/a.txt")).body(Empty::<bytes::Bytes>::new());
        let response = sender.send_request(request.expect("a request")).await.expect("an answer");
        let reason = response.headers().get("miwi-reason").map_or("", |it| it.to_str().expect("text")).to_owned();
        answers.push((response.status().as_u16(), reason));
        response.into_body().collect().await.expect("its body");
    }
    driver.abort();
    answers
}

fn upgrade(host: &str) -> String {
    let fields = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                  sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    get("/socket", host, fields)
}

/// One sample of `/metrics`, once it has that value.
async fn counted(daemon: &Daemon, sample: &str, expected: u64) {
    let line = format!("{sample} {expected}");
    let read = async || {
        let page = harness::get(daemon.address(2), "localhost", "/metrics").await.expect("the admin listener answers");
        page.text()
    };
    wait::for_value(wait::SOON, &line, read, |it| it.lines().any(|it| it == line)).await;
}
