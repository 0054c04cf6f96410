//! Whom limits and lists mean: the visitor where Cloudflare speaks for it, and the peer itself where somebody only claims to.

use harness::{Daemon, Origin};

use super::peer::{CLOUDFLARE, CLOUDFLARE_V6, LOG, NOWHERE, SERVER, STRANGER, ask, from, get, logged};

const VICTIM: &str = "203.0.113.9";

/// Every field that could name a client.
fn claims(ip: &str) -> String {
    format!(
        "cf-connecting-ip: {ip}\r\nx-forwarded-for: {ip}\r\nx-real-ip: {ip}\r\ntrue-client-ip: {ip}\r\nforwarded: for={ip}\r\n\
         cf-connecting-ipv6: 2001:db8::9\r\ncf-pseudo-ipv4: {ip}\r\ncf-ray: 8c1e2d3f4a5b6c7d-FRA\r\ncf-ipcountry: DE\r\n"
    )
}

async fn start(security: &str, origin: &Origin) -> Daemon {
    let site = format!("[backends.\"a.test\"]\nurl = \"{}\"\n", origin.url());
    Daemon::start(&format!("{SERVER}{LOG}[cloudflare]\ntrust = true\n{NOWHERE}[security]\n{security}{site}")).await
}

async fn asked(daemon: &Daemon, peer: &str, claimed: &str) -> (u16, String) {
    let fields = if claimed.is_empty() { String::new() } else { claims(claimed) };
    let (head, _) = ask(&mut from(daemon, 1, peer).await, &get("/", "a.test", &fields)).await.unwrap();
    let reason = head.lines().find_map(|it| it.strip_prefix("miwi-reason: ")).unwrap_or_default();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), reason.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_counts_visitors_and_not_who_a_stranger_says_he_is() {
    let origin = Origin::start("origin").await;
    let daemon = start("rate_limit = 1\n", &origin).await;
    let (served, limited) = ((200, String::new()), (429, "rate-limit".to_owned()));
    // Another name each time helps the stranger nothing ...
    assert_eq!(asked(&daemon, STRANGER, "").await, served);
    for claimed in [VICTIM, "203.0.113.10", "2001:db8:1::1", "127.0.0.1", "104.16.0.1"] {
        assert_eq!(asked(&daemon, STRANGER, claimed).await, limited, "{claimed}");
    }
    // ... and costs those whose names it took nothing.
    assert_eq!(asked(&daemon, CLOUDFLARE, VICTIM).await, served);
    assert_eq!(asked(&daemon, CLOUDFLARE, VICTIM).await, limited);
    assert_eq!(asked(&daemon, CLOUDFLARE_V6, VICTIM).await, limited, "through whichever of its addresses");
    assert_eq!(asked(&daemon, CLOUDFLARE, "203.0.113.10").await, served);
    assert_eq!(asked(&daemon, VICTIM, "").await, limited, "it is the same client when it comes by itself");
    assert_eq!(origin.requests(), 3);
    let lines = logged(&daemon, 11).await;
    for line in &lines {
        let is_edge = line["peer_addr"] == CLOUDFLARE || line["peer_addr"] == CLOUDFLARE_V6;
        assert_eq!(is_edge, line["remote_addr"] != line["peer_addr"], "{line}");
        assert_eq!(is_edge, line.get("cf_ray").is_some(), "{line}");
    }
    let refused = lines.iter().filter(|it| it["reason"] == "rate-limit");
    assert_eq!(refused.filter(|it| it["remote_addr"] == STRANGER).count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_mean_visitors_and_not_who_a_stranger_says_he_is() {
    let origin = Origin::start("origin").await;
    let daemon = start(&format!("allow = [\"203.0.113.0/24\"]\ndeny = [\"{VICTIM}\"]\n"), &origin).await;
    let (served, denied) = ((200, String::new()), (403, "denied".to_owned()));
    for (peer, claimed, expected) in [
        (STRANGER, "203.0.113.10", &denied),
        (STRANGER, "", &denied),
        (CLOUDFLARE, "203.0.113.10", &served),
        (CLOUDFLARE, VICTIM, &denied),
        (CLOUDFLARE, "198.51.100.7", &denied),
        // Cloudflare that speaks for nobody is itself.
        (CLOUDFLARE, "", &denied),
        (VICTIM, "203.0.113.10", &denied),
        ("203.0.113.11", VICTIM, &served),
    ] {
        assert_eq!(asked(&daemon, peer, claimed).await, *expected, "{peer} {claimed}");
    }
    assert_eq!(origin.requests(), 2);
    let last = origin.last();
    assert_eq!((last.header("x-forwarded-for"), last.header("cf-connecting-ip")), ("203.0.113.11", ""));
}

/// Visitors share connections of Cloudflare, and one that asks too much is not the ruin of the others.
#[tokio::test(flavor = "multi_thread")]
async fn visitors_on_one_connection_are_counted_apart() {
    let origin = Origin::start("origin").await;
    let daemon = start("rate_limit = 1\n", &origin).await;
    let mut edge = from(&daemon, 1, CLOUDFLARE).await;
    for (visitor, expected) in [(1, 200), (1, 429), (2, 200), (1, 429), (2, 429), (3, 200)] {
        let fields = format!("cf-connecting-ip: 203.0.113.{visitor}\r\n");
        let (head, _) = ask(&mut edge, &get("/", "a.test", &fields)).await.unwrap();
        assert!(head.starts_with(&format!("http/1.1 {expected}")), "{visitor}: {head}");
    }
}
