//! Whose word counts for what: Cloudflare's for its visitors, and nobody's who only says that he is Cloudflare.

use harness::{Daemon, Origin, wait};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::peer::{CLOUDFLARE, CLOUDFLARE_V6, LOG, NOWHERE, SERVER, STRANGER, ask, from, get, logged, secure};
use crate::tls::client::{Authority, Wants, client};

/// What is claimed of the client.
const CLAIMS: &str = "cf-connecting-ip: 203.0.113.9\r\nx-forwarded-for: 203.0.113.9\r\ncf-ray: 8c1e2d3f4a5b6c7d-FRA\r\n\
                      cf-ipcountry: DE\r\nx-real-ip: 203.0.113.66\r\ntrue-client-ip: 203.0.113.66\r\n\
                      forwarded: for=203.0.113.66\r\nx-request-id: forged\r\nx-forwarded-host: forged\r\n";

fn config(trust: &str, sites: &str) -> String {
    format!("{SERVER}{LOG}[cloudflare]\n{trust}{NOWHERE}{sites}")
}

fn site(host: &str, origin: &Origin) -> String {
    format!("[backends.\"{host}\"]\nurl = \"{}\"\n", origin.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudflare_says_who_its_visitors_are_and_nobody_else_does() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&config("trust = true\n", &site("a.test", &origin))).await;
    for (peer, is_believed) in [(CLOUDFLARE, true), (CLOUDFLARE_V6, true), (STRANGER, false), ("104.32.0.1", false)] {
        for request in [get("/", "a.test", CLAIMS), get("/", "a.test", CLAIMS).replace("GET", "DELETE")] {
            let count = origin.requests();
            let mut stream = from(&daemon, 1, peer).await;
            let (head, _) = ask(&mut stream, &request).await.unwrap();
            assert!(head.starts_with("http/1.1 200"), "{head}");
            let seen = origin.last();
            let expected = |said: &'static str| if is_believed { said } else { "" };
            assert_eq!(seen.header("cf-connecting-ip"), expected("203.0.113.9"), "{peer}");
            assert_eq!(seen.header("cf-ipcountry"), expected("DE"));
            assert_eq!(seen.header("cf-ray"), expected("8c1e2d3f4a5b6c7d-FRA"));
            let list = if is_believed { format!("203.0.113.9, {peer}") } else { peer.to_owned() };
            assert_eq!(seen.header("x-forwarded-for"), list);
            // What Cloudflare lets through as a visitor wrote it is believed of nobody.
            for name in ["x-real-ip", "true-client-ip"] {
                assert_eq!(seen.header(name), "", "{name}");
            }
            assert!(!seen.header("forwarded").contains("203.0.113.66"));
            assert_ne!(seen.header("x-request-id"), "forged");
            assert_eq!(seen.header("x-forwarded-host"), "a.test");
            let line = logged(&daemon, count + 1).await.pop().unwrap();
            assert_eq!(line["remote_addr"], if is_believed { "203.0.113.9" } else { peer });
            assert_eq!(line["peer_addr"], peer);
            assert_eq!(line.get("cf_ray").is_some(), is_believed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_trust_cloudflares_peers_are_like_others() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&config("", &site("a.test", &origin))).await;
    let (head, _) = ask(&mut from(&daemon, 1, CLOUDFLARE).await, &get("/", "a.test", CLAIMS)).await.unwrap();
    assert!(head.starts_with("http/1.1 200"));
    assert_eq!(origin.last().header("cf-connecting-ip"), "");
    assert_eq!(origin.last().header("x-forwarded-for"), CLOUDFLARE);
    assert_eq!(logged(&daemon, 1).await[0]["remote_addr"], CLOUDFLARE);
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_with_underscores_reach_no_app_from_anywhere() {
    let origin = Origin::start("origin").await;
    let text = config("trust = true\n", &site("a.test", &origin));
    let daemon =
        Daemon::start(&text.replace("[cloudflare]", "[server.limits]\nunderscore_headers = \"keep\"\n[cloudflare]"))
            .await;
    for peer in [CLOUDFLARE, STRANGER] {
        let twins = "cf_connecting_ip: 203.0.113.66\r\nx_forwarded_for: 203.0.113.66\r\ncf_ray: x\r\n";
        ask(&mut from(&daemon, 1, peer).await, &get("/", "a.test", twins)).await.unwrap();
        for name in ["cf_connecting_ip", "x_forwarded_for", "cf_ray"] {
            assert_eq!(origin.last().header(name), "", "{peer} {name}");
        }
    }
}

/// Files come from the shelf where they can; whom an answer is for is no matter there, so nobody at the edge uses it.
#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_a_connection_has_its_own_client() {
    let sites = "[backends.\"a.test\"]\nroot = \"{dir}/www\"\nsecurity.headers.cache_tag = \"shop\"\n";
    let daemon = Daemon::builder(&config("trust = true\n", sites)).file("www/a.txt", "content").start().await;
    let mut stranger = from(&daemon, 1, STRANGER).await;
    let mut edge = from(&daemon, 1, CLOUDFLARE).await;
    for round in 1..=5 {
        let request = get("/a.txt", "a.test", &format!("cf-connecting-ip: 203.0.113.{round}\r\n"));
        for (stream, has_tag) in [(&mut stranger, false), (&mut edge, true)] {
            let (head, body) = ask(stream, &request).await.unwrap();
            assert!(head.starts_with("http/1.1 200") && body == "content", "{head}");
            assert_eq!(head.contains("cache-tag: shop"), has_tag, "Cloudflare alone is told: {head}");
        }
    }
    let lines = logged(&daemon, 10).await;
    let of = |peer: &str| {
        let of_peer = lines.iter().filter(|it| it["peer_addr"] == peer);
        of_peer.map(|it| it["remote_addr"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(STRANGER), [STRANGER; 5]);
    assert_eq!(of(CLOUDFLARE), ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5"]);
}

/// Cloudflare uses a connection again after minutes, and takes one that is just being closed for a failure.
#[tokio::test(flavor = "multi_thread")]
async fn connections_of_cloudflare_outlast_the_patience_that_others_get() {
    let sites = "[backends.\"a.test\"]\nrespond = { status = 200, body = \"a\" }\n";
    let text = config("trust = true\n", sites).replace("[server]\n", "[server]\nkeepalive_timeout = 1\n");
    let daemon = Daemon::start(&text).await;
    let mut edge = from(&daemon, 1, CLOUDFLARE).await;
    let mut stranger = from(&daemon, 1, STRANGER).await;
    for stream in [&mut edge, &mut stranger] {
        assert!(ask(stream, &get("/", "a.test", "")).await.is_some());
    }
    let mut byte = [0; 1];
    let closed = tokio::io::AsyncReadExt::read(&mut stranger, &mut byte);
    assert_eq!(tokio::time::timeout(harness::wait::SOON, closed).await.unwrap().unwrap(), 0);
    assert!(ask(&mut edge, &get("/", "a.test", "")).await.is_some(), "it is older than the one that was closed");
}

fn https(server: &str, sites: &str) -> String {
    let ssl = "[ssl]\ncert = \"{dir}/cert.pem\"\nkey = \"{dir}/key.pem\"\n";
    config("trust = true\n", sites)
        .replace("[server]\n", &format!("[server]\nhttps_port = {{port2}}\n{server}"))
        .replace("[cloudflare]", &format!("{ssl}[cloudflare]"))
}

const FILES: &str = "[backends.\"a.test\"]\nroot = \"{dir}/www\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn http3_is_not_offered_to_cloudflare_which_never_uses_it() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    let builder = Daemon::builder(&https("", FILES)).file("cert.pem", &pair.cert).file("key.pem", &pair.key);
    let daemon = builder.file("www/a.txt", "content").start().await;
    let trusting = client(&authority.pem, &Wants::default());
    for _ in 0..3 {
        for (peer, expected) in [(STRANGER, true), (CLOUDFLARE, false)] {
            let mut stream = secure(&daemon, peer, "a.test", &trusting).await.unwrap();
            for _ in 0..2 {
                let (head, _) = ask(&mut stream, &get("/a.txt", "a.test", "")).await.unwrap();
                assert!(head.starts_with("http/1.1 200"), "{head}");
                assert_eq!(head.contains("alt-svc"), expected, "{peer}: {head}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_visitors_share_one_http2_connection() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    let builder = Daemon::builder(&https("", FILES)).file("cert.pem", &pair.cert).file("key.pem", &pair.key);
    let daemon = builder.file("www/a.txt", "content").start().await;
    let config = client(&authority.pem, &Wants { alpn: &["h2"], ..Wants::default() });
    let stream = secure(&daemon, CLOUDFLARE, "a.test", &config).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    for visitor in 1..=4 {
        let request = http::Request::get("https://a.test/a.txt")
            .header("cf-connecting-ip", format!("2001:db8::{visitor}"))
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = sender.clone().send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("alt-svc"));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "content");
    }
    driver.abort();
    let clients: Vec<_> = logged(&daemon, 4).await.into_iter().map(|it| it["remote_addr"].clone()).collect();
    assert_eq!(clients, ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn visitors_that_came_over_https_are_not_sent_round_in_circles() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    let text = https("redirect_https = true\n", FILES);
    let start = async |text: &str| {
        let builder = Daemon::builder(text).file("cert.pem", &pair.cert).file("key.pem", &pair.key);
        builder.file("www/a.txt", "content").start().await
    };
    // Not even where nothing else is believed.
    let lax = start(&text.replace("trust = true\n", "")).await;
    for (peer, status) in [(CLOUDFLARE, "200"), (STRANGER, "308")] {
        let fields = "cf-visitor: {\"scheme\":\"https\"}\r\ncf-connecting-ip: 203.0.113.9\r\n";
        let (head, _) = ask(&mut from(&lax, 1, peer).await, &get("/a.txt", "a.test", fields)).await.unwrap();
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{peer}: {head}");
    }
    assert!(logged(&lax, 2).await.iter().all(|it| it["remote_addr"] == it["peer_addr"]));
    // Nor is what they get kept for those who are sent on, when the file is old enough to be.
    let begun = tokio::time::Instant::now();
    wait::until(wait::SOON, "the file is settled", async || {
        let fields = "cf-visitor: {\"scheme\":\"https\"}\r\n";
        for (peer, fields, status) in [(CLOUDFLARE, fields, "200"), (STRANGER, "", "308")] {
            let (head, _) = ask(&mut from(&lax, 1, peer).await, &get("/a.txt", "a.test", fields)).await.unwrap();
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{peer}: {head}");
        }
        begun.elapsed() > std::time::Duration::from_secs(3)
    })
    .await;
    drop(lax);
    let daemon = start(&text).await;
    for (peer, fields, status) in [
        (CLOUDFLARE, "cf-visitor: {\"scheme\":\"https\"}\r\n", "200"),
        (CLOUDFLARE, "x-forwarded-proto: https\r\n", "200"),
        (CLOUDFLARE, "cf-visitor: {\"scheme\":\"http\"}\r\nx-forwarded-proto: http\r\n", "308"),
        (CLOUDFLARE, "", "308"),
        (STRANGER, "cf-visitor: {\"scheme\":\"https\"}\r\nx-forwarded-proto: https\r\n", "308"),
    ] {
        let (head, _) = ask(&mut from(&daemon, 1, peer).await, &get("/a.txt", "a.test", fields)).await.unwrap();
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{peer} {fields}: {head}");
    }
    assert_eq!(daemon.log().matches("Flexible").count(), 1, "the operator is told once: {}", daemon.log());
}
