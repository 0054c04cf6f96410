//! Nobody but Cloudflare: by address, and by certificate.

use harness::{Builder, Daemon};

use super::peer::{CLOUDFLARE, NOWHERE, SERVER, STRANGER, ask, from, get, secure};
use crate::tls::client::{Authority, Wants, client};

const SITE: &str = "[backends.\"a.test\"]\nrespond = { status = 200, body = \"a\" }\n";
const EXEMPT: &str = "203.0.113.77";

fn text(cloudflare: &str, more: &str) -> String {
    let server = SERVER.replace("[server]\n", "[server]\nhttps_port = {port2}\n");
    let ssl = "[ssl]\ncert = \"{dir}/cert.pem\"\nkey = \"{dir}/key.pem\"\n";
    format!("{server}{ssl}{more}[cloudflare]\n{NOWHERE}{cloudflare}{SITE}")
}

fn builder(servers: &Authority, cloudflare: &str, more: &str) -> Builder {
    let pair = servers.issue(&["a.test"]);
    Daemon::builder(&text(cloudflare, more)).file("cert.pem", &pair.cert).file("key.pem", &pair.key)
}

/// The status over cleartext and over TLS; `None` when the connection was closed.
async fn statuses(daemon: &Daemon, servers: &Authority, peer: &str) -> [Option<u16>; 2] {
    let status = |answer: Option<(String, String)>| answer.and_then(|(head, _)| head.get(9..12)?.parse().ok());
    let plain = ask(&mut from(daemon, 1, peer).await, &get("/", "a.test", "")).await;
    let config = client(&servers.pem, &Wants::default());
    let secured = match secure(daemon, peer, "a.test", &config).await {
        Ok(mut stream) => ask(&mut stream, &get("/", "a.test", "")).await,
        Err(_) => None,
    };
    [status(plain), status(secured)]
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_closed_before_tls_begins_or_told_so() {
    let servers = Authority::new();
    let exempt = format!("only_exempt = [\"{EXEMPT}/32\"]\n");
    for (refusal, expected) in [("", None), ("only_refusal = \"answer\"\n", Some(403))] {
        let daemon = builder(&servers, &format!("only = true\n{exempt}{refusal}"), "").start().await;
        assert_eq!(statuses(&daemon, &servers, CLOUDFLARE).await, [Some(200); 2]);
        assert_eq!(statuses(&daemon, &servers, EXEMPT).await, [Some(200); 2]);
        assert_eq!(statuses(&daemon, &servers, STRANGER).await, [expected; 2], "{refusal}");
        let (head, _) = match ask(&mut from(&daemon, 1, STRANGER).await, &get("/", "a.test", "")).await {
            Some(answer) => answer,
            None => continue,
        };
        assert!(head.contains("miwi-reason: denied"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_older_than_the_wish_ends_with_its_next_request() {
    let servers = Authority::new();
    let daemon = builder(&servers, "trust = true\n", "").start().await;
    let mut stranger = from(&daemon, 1, STRANGER).await;
    let mut edge = from(&daemon, 1, CLOUDFLARE).await;
    for stream in [&mut stranger, &mut edge] {
        assert!(ask(stream, &get("/", "a.test", "")).await.unwrap().0.starts_with("http/1.1 200"));
    }
    daemon.rewrite_config(&text("trust = true\nonly = true\n", ""));
    assert_eq!(daemon.reload().await.status, 0);
    let (head, _) = ask(&mut stranger, &get("/", "a.test", "")).await.unwrap();
    assert!(head.starts_with("http/1.1 403") && head.contains("connection: close"), "{head}");
    assert!(ask(&mut edge, &get("/", "a.test", "")).await.unwrap().0.starts_with("http/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudflare_has_to_show_its_certificate() {
    let (servers, pulls) = (Authority::new(), Authority::new());
    let more = "client_ca = \"{dir}/pulls.pem\"\n";
    let lax = "[backends.\"lax.test\"]\nrespond = { status = 200, body = \"l\" }\n[backends.\"lax.test\".ssl]\nclient_auth = \"off\"\n";
    let pair = servers.issue(&["a.test", "lax.test"]);
    let builder = Daemon::builder(&format!("{}{lax}", text("origin_pulls = true\n", more)));
    let builder = builder.file("cert.pem", &pair.cert).file("key.pem", &pair.key).file("pulls.pem", &pulls.pem);
    let daemon = builder.start().await;
    let (good, bad) = (pulls.issue(&["cloudflare"]), servers.issue(&["somebody"]));
    for (host, shows, expected) in [
        ("a.test", Some(&good), true),
        ("a.test", Some(&bad), false),
        ("a.test", None, false),
        ("lax.test", None, true),
    ] {
        let config = client(&servers.pem, &Wants { shows, ..Wants::default() });
        let answered = match secure(&daemon, CLOUDFLARE, host, &config).await {
            Ok(mut stream) => ask(&mut stream, &get("/", host, "")).await,
            Err(_) => None,
        };
        let is_served = answered.is_some_and(|(head, _)| head.starts_with("http/1.1 200"));
        assert_eq!(is_served, expected, "{host} {}", shows.is_some());
    }
    let (head, _) = ask(&mut from(&daemon, 1, CLOUDFLARE).await, &get("/", "a.test", "")).await.unwrap();
    assert!(head.starts_with("http/1.1 403"), "nor is there a way around in cleartext: {head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_authority_of_ones_own_it_is_cloudflares() {
    let servers = Authority::new();
    let daemon = builder(&servers, "origin_pulls = true\n", "").start().await;
    let other = servers.issue(&["somebody"]);
    for shows in [None, Some(&other)] {
        let config = client(&servers.pem, &Wants { shows, ..Wants::default() });
        let answered = match secure(&daemon, CLOUDFLARE, "a.test", &config).await {
            Ok(mut stream) => ask(&mut stream, &get("/", "a.test", "")).await,
            Err(_) => None,
        };
        assert!(answered.is_none(), "{answered:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_no_protection_is_refused() {
    let check = async |text: &str| Daemon::builder(text).check(&[]).await;
    for (text, word) in [
        ("[cloudflare]\norigin_pulls = true\n", "HTTPS is off"),
        (
            "[server]\nenable_https = true\nhttps_port = {port2}\n[ssl]\nclient_auth = \"off\"\n[cloudflare]\norigin_pulls = true\n",
            "origin_pulls",
        ),
        ("[cloudflare]\nonly_exempt = [\"10.0.0.0/8\"]\n", "`only`"),
        ("[cloudflare]\nonly = true\nonly_refusal = \"no\"\n", "answer"),
    ] {
        let said = check(text).await;
        assert_eq!(said.status, 6, "{text}: {said:?}");
        assert!(said.all().contains(word), "{text}: {}", said.all());
    }
}
