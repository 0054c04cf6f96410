//! The proxy seen from both ends: what the client gets and what the origin saw.

use std::time::Duration;

use bytes::Bytes;
use harness::{Daemon, Origin, RawOrigin, wait};
use http::{Request, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

fn to(origin: &str, lines: &str) -> String {
    format!("[backends.\"a.test\"]\nurl = \"{origin}\"\n{lines}\n")
}

fn request(path: &str) -> http::request::Builder {
    Request::get(path).header(header::HOST, "a.test")
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_headers_tell_the_origin_who_asked() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&to(&origin.url(), "")).await;
    let ask = request("/x?y=1")
        .header("x-forwarded-for", "203.0.113.9")
        .header("forwarded", "for=203.0.113.9")
        .header("x-request-id", "forged")
        .header("te", "gzip")
        .header("connection", "x-private")
        .header("x-private", "secret")
        .body(Bytes::new())
        .unwrap();
    let reply = daemon.request(ask).await;
    assert_eq!(reply.text(), "origin");
    let seen = origin.last();
    assert_eq!(seen.uri.to_string(), "/x?y=1");
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1", "an untrusted peer's claim is dropped");
    assert!(!seen.header("forwarded").contains("203.0.113.9"));
    assert_eq!(seen.header("x-forwarded-proto"), "http");
    assert_eq!(seen.header("x-forwarded-host"), "a.test");
    assert!(!seen.header("x-forwarded-port").is_empty() && !seen.header("via").is_empty());
    assert!(seen.header("x-request-start").starts_with("t="));
    assert!(!seen.headers.contains_key("x-private"), "what Connection lists is hop-by-hop");
    assert!(!seen.header("x-request-id").is_empty() && seen.header("x-request-id") != "forged");
    assert_eq!(reply.header("x-request-id"), seen.header("x-request-id"));
    assert_eq!(reply.header("server"), "miwid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed() {
    let origin = Origin::start("origin").await;
    let daemon =
        Daemon::start(&format!("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{}", to(&origin.url(), ""))).await;
    let ask = request("/")
        .header("x-forwarded-for", "203.0.113.9")
        .header("x-request-id", "kept")
        .body(Bytes::new())
        .unwrap();
    daemon.request(ask).await;
    assert!(origin.last().header("x-forwarded-for").starts_with("203.0.113.9"));
    assert_eq!(origin.last().header("x-request-id"), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_pass_both_ways() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&to(&origin.url(), "")).await;
    let body = Bytes::from(vec![b'z'; 3 << 20]);
    let post = Request::post("/echo").header(header::HOST, "a.test").body(body.clone()).unwrap();
    let reply = daemon.request(post).await;
    assert_eq!((reply.status, reply.body.len()), (200, body.len()));
    assert_eq!(reply.body, body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_streams_before_it_is_complete() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let daemon = Daemon::start(&to(&format!("http://{}", listener.local_addr().unwrap()), "")).await;
    let mut client = TcpStream::connect(daemon.http()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let (mut upstream, _) = timeout(wait::SOON, listener.accept()).await.unwrap().unwrap();
    let mut chunk = [0; 4096];
    let _ = upstream.read(&mut chunk).await.unwrap();
    upstream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await.unwrap();
    let mut got = String::new();
    while !got.contains("first") {
        let count = timeout(wait::SOON, client.read(&mut chunk)).await.expect("the first part comes at once").unwrap();
        assert!(count > 0, "ended early: {got}");
        got.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    upstream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    while !got.contains("last") {
        let count = timeout(wait::SOON, client.read(&mut chunk)).await.unwrap().unwrap();
        assert!(count > 0, "ended early: {got}");
        got.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_origin_are_reused() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&format!("[server]\nworkers = 1\n{}", to(&origin.url(), ""))).await;
    for _ in 0..20 {
        assert_eq!(daemon.get_host("a.test", "/").await.status, 200);
    }
    assert!(origin.connections() <= 2, "{} connections for 20 requests", origin.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_leave_their_connection_behind_too() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&format!("[server]\nworkers = 1\n{}", to(&origin.url(), ""))).await;
    for _ in 0..20 {
        let upload = request("/echo").method("POST").body(Bytes::from(vec![b'x'; 100_000])).unwrap();
        assert_eq!(daemon.request(upload).await.status, 200);
    }
    assert!(origin.connections() <= 2, "{} connections for 20 uploads", origin.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_a_length_and_chunks_is_framed_by_its_chunks() {
    let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let origin = RawOrigin::start(bytes).await;
    let daemon = Daemon::start(&to(&origin.url(), "")).await;
    assert_eq!(daemon.get_host("a.test", "/").await.text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_lifts_the_limit_of_a_body() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&format!("[server.limits]\nmax_request_size = 1000\n{}", to(&origin.url(), ""))).await;
    let chunk = format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000));
    for header in ["upgrade: x", "content-type: application/grpc", "expect: 100-continue"] {
        let head = format!("POST /echo HTTP/1.1\r\nhost: a.test\r\n{header}\r\ntransfer-encoding: chunked\r\n\r\n");
        let answer = String::from_utf8_lossy(&daemon.raw(format!("{head}{chunk}")).await).into_owned();
        assert!(answer.contains("HTTP/1.1 413 "), "{header}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_closes_after_each_answer_fails_no_request() {
    let origin = Origin::start("origin").await;
    origin.close_after_each();
    let daemon = Daemon::start(&to(&origin.url(), "")).await;
    daemon.load("a.test").requests(300).run().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_miwid_names_its_reason() {
    let config = format!("[server]\nrequest_timeout = \"1s\"\n{}", to("http://127.0.0.1:{port2}", ""));
    let builder = Daemon::builder(&config);
    let address = ([127, 0, 0, 1], builder.port(2)).into();
    let daemon = builder.start().await;
    let refused = daemon.get_host("a.test", "/").await;
    assert_eq!((refused.status, refused.header("miwi-reason")), (502, "connect-refused"));
    let origin = Origin::start_at("origin", address).await;
    wait::until(wait::SOON, "the origin is found", async || daemon.get_host("a.test", "/").await.status == 200).await;
    origin.delay(Duration::from_secs(60));
    let late = daemon.get_host("a.test", "/").await;
    assert_eq!((late.status, late.header("miwi-reason")), (504, "head-timeout"));
    let nobody = daemon.get_host("unknown.test", "/").await;
    assert_eq!((nobody.status, nobody.header("miwi-reason")), (404, "no-site"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_http_is_a_502() {
    for bytes in
        [&b"garbage\r\n\r\n"[..], b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"]
    {
        let origin = RawOrigin::start(bytes).await;
        let daemon = Daemon::start(&to(&origin.url(), "")).await;
        assert_eq!(daemon.get_host("a.test", "/").await.status, 502, "{}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn round_robin_gives_everybody_the_same() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let urls = format!("urls = [\"{}\", \"{}\"]\nstrategy = \"round_robin\"", one.url(), two.url());
    let daemon = Daemon::start(&format!("[server]\nworkers = 1\n[backends.\"a.test\"]\n{urls}\n")).await;
    daemon.load("a.test").connections(1).requests(100).run().await.assert_none_failed();
    assert_eq!((one.requests(), two.requests()), (50, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn ip_hash_keeps_a_client_at_its_endpoint() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let urls = format!("urls = [\"{}\", \"{}\"]\nstrategy = \"ip_hash\"", one.url(), two.url());
    let daemon = Daemon::start(&format!("[backends.\"a.test\"]\n{urls}\n")).await;
    let result = daemon.load("a.test").connections(4).requests(40).run().await;
    result.assert_none_failed();
    assert_eq!(result.bodies.len(), 1, "{:?}", result.bodies);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_endpoint_gets_no_traffic_until_it_is_well() {
    let (well, sick) = (Origin::start("well").await, Origin::start("sick").await);
    sick.health(500);
    let lines = format!(
        "urls = [\"{}\", \"{}\"]\nhealth_check = \"/health\"\nhealth_interval = \"100ms\"",
        well.url(),
        sick.url()
    );
    let daemon = Daemon::start(&format!("[backends.\"a.test\"]\n{lines}\n")).await;
    wait::until(wait::SOON, "the well one is found", async || daemon.get_host("a.test", "/").await.status == 200).await;
    daemon.load("a.test").requests(100).run().await.assert_none_failed();
    assert_eq!(sick.requests(), 0, "a new endpoint serves after its first good check");
    sick.health(200);
    wait::until(wait::SOON, "it serves", async || {
        daemon.get_host("a.test", "/").await;
        sick.requests() > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_costs_no_idempotent_request() {
    let well = Origin::start("well").await;
    let lines = format!("urls = [\"http://127.0.0.1:{{port2}}\", \"{}\"]", well.url());
    let daemon = Daemon::start(&format!("[backends.\"a.test\"]\n{lines}\n")).await;
    daemon.load("a.test").requests(100).run().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_routes_and_preserve_host_do_what_they_say() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let config = format!(
        "[backends.\"a.test\"]\nurl = \"{}\"\naliases = [\"b.test\"]\npreserve_host = true\n\
         [backends.\"a.test\".routes.\"/two/\"]\nurl = \"{}\"\nstrip_prefix = true\n",
        one.url(),
        two.url()
    );
    let daemon = Daemon::start(&config).await;
    assert_eq!(daemon.get_host("b.test", "/x").await.text(), "one");
    assert_eq!(one.last().header("host"), "b.test");
    assert_eq!(daemon.get_host("a.test", "/two/deep?q").await.text(), "two");
    assert_eq!(two.last().uri.to_string(), "/deep?q");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_be_written_as_urls_are() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let route =
        format!("[backends.\"a.test\".routes.\"/caf%C3%A9%20au/\"]\nurl = \"{}\"\nstrip_prefix = true\n", two.url());
    let daemon = Daemon::start(&format!("[backends.\"a.test\"]\nurl = \"{}\"\n{route}", one.url())).await;
    for path in ["/caf%C3%A9%20au/lait", "/caf%c3%a9%20au/lait", "/c%61f%C3%A9%20au/lait"] {
        assert_eq!(daemon.get_host("a.test", path).await.text(), "two", "{path}");
        assert_eq!(two.last().uri.to_string(), "/lait", "{path}");
    }
    assert_eq!(daemon.get_host("a.test", "/cafe").await.text(), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_answer_with_their_own_status() {
    let origin = Origin::start("origin").await;
    let limits = "[server.limits]\nmax_request_size = \"1KB\"\nmax_header_size = \"4KB\"\nmax_uri_length = 100\n";
    let daemon = Daemon::start(&format!("{limits}{}", to(&origin.url(), ""))).await;
    let long = daemon.get_host("a.test", &format!("/{}", "u".repeat(200))).await;
    assert_eq!((long.status, long.header("miwi-reason")), (414, "limit-uri"));
    let wide = request("/").header("x-wide", "w".repeat(8192)).body(Bytes::new()).unwrap();
    assert_eq!(daemon.request(wide).await.status, 431);
    let post = Request::post("/echo").header(header::HOST, "a.test").body(Bytes::from(vec![b'x'; 2048])).unwrap();
    let big = daemon.request(post).await;
    assert_eq!((big.status, big.header("miwi-reason")), (413, "limit-body"));
    assert_eq!(origin.requests(), 0, "none of them reached the origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_framing_is_refused_and_the_connection_closed() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&to(&origin.url(), "")).await;
    for head in [
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let answer = String::from_utf8_lossy(&daemon.raw(head).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400"), "{head:?} got {answer:?}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_through() {
    let daemon = Daemon::start(&crate::lifecycle::managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let mut socket = daemon.websocket("chaos.test", "/ws").await;
    for text in ["one", "two", &"long ".repeat(20_000)] {
        socket.echo(text).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_by_prior_knowledge_works_on_cleartext() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&to(&origin.url(), "")).await;
    let curl = tokio::process::Command::new("curl")
        .args(["-sS", "--http2-prior-knowledge", "-w", " %{http_version} %{http_code}", "-H", "Host: a.test"])
        .arg(format!("http://{}/", daemon.http()))
        .output()
        .await;
    let Ok(output) = curl else { harness::skip!("curl is not installed") };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if complaint.contains("does not support") || complaint.contains("unsupported") {
        harness::skip!("this curl speaks no HTTP/2");
    }
    assert_eq!(text, "origin 2 200", "{complaint}");
}
