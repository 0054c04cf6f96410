//! `allow`, `ip_whitelist` and `deny`: by the address of the client, at every level and over every protocol.

use harness::{Daemon, Origin};

use super::{SERVER, asked, asked_over_http2, counted, field, status, told, upgrade};
use crate::cloudflare::peer::{LOG, ask, from, get, logged};

const SITES: &str = r#"
[backends."a.test"]
root = "{dir}/www"

[backends."b.test"]
respond = { status = 200, body = "b" }
security.allow = []
security.deny = ["2001:db8:bad::/48"]

[backends."b.test".routes."/admin"]
respond = { status = 200, body = "admin" }
security.ip_whitelist = ["10.0.0.0/8"]
"#;

fn denied() -> (u16, String) {
    (403, "denied".to_owned())
}

fn served() -> (u16, String) {
    (200, String::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_level_takes_over_what_it_does_not_say() {
    let security = "[security]\nallow = [\"10.0.0.0/8\", \"2001:db8::/32\"]\ndeny = [\"10.0.0.66\"]\n";
    let daemon = Daemon::builder(&format!("{SERVER}{security}{SITES}")).file("www/a.txt", "a").start().await;
    for (peer, host, path, expected) in [
        ("10.0.0.1", "a.test", "/a.txt", served()),
        ("2001:db8::9", "a.test", "/a.txt", served()),
        ("10.0.0.66", "a.test", "/a.txt", denied()),
        ("198.51.100.1", "a.test", "/a.txt", denied()),
        // Whether a file is there is not told either.
        ("198.51.100.1", "a.test", "/none.txt", denied()),
        ("198.51.100.1", "nobody.test", "/", denied()),
        ("10.0.0.1", "nobody.test", "/", (404, "no-site".to_owned())),
        // Its own lists take the place of those above.
        ("198.51.100.1", "b.test", "/", served()),
        ("10.0.0.66", "b.test", "/", served()),
        ("2001:db8:bad::1", "b.test", "/", denied()),
        ("198.51.100.1", "b.test", "/admin", denied()),
        ("198.51.100.1", "b.test", "/x/../admin", denied()),
        ("198.51.100.1", "b.test", "/%61dmin", denied()),
        ("10.0.0.1", "b.test", "/admin", served()),
        ("2001:db8:bad::1", "b.test", "/admin", denied()),
    ] {
        assert_eq!(asked(&daemon, peer, host, path).await, expected, "{peer} {host}{path}");
    }
    assert_eq!(asked_over_http2(&daemon, "198.51.100.1", "a.test", 2).await, [denied(), denied()]);
    assert_eq!(asked_over_http2(&daemon, "10.0.0.1", "a.test", 1).await, [served()]);
    counted(&daemon, "miwid_policy_refusals_total{reason=\"denied\",mode=\"enforce\"}", 11).await;
    // Who asks about the server itself from the machine itself is not asked for an address.
    assert_eq!(asked(&daemon, "127.0.0.1", "localhost", "/health").await, served());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_never_hears_of_who_is_kept_out() {
    let origin = Origin::start("origin").await;
    let site = format!("[backends.\"a.test\"]\nurl = \"{}\"\nsecurity.deny = [\"198.51.100.0/24\"]\n", origin.url());
    let daemon = Daemon::start(&format!("{SERVER}{LOG}{site}")).await;
    let post = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhello";
    for request in [get("/", "a.test", ""), upgrade("a.test"), post.to_owned()] {
        assert_eq!(told(&daemon, "198.51.100.7", &request).await, denied(), "{request}");
    }
    assert_eq!(origin.requests(), 0);
    assert_eq!(told(&daemon, "198.51.101.7", post).await, served());
    assert_eq!(origin.requests(), 1);
    let lines = logged(&daemon, 4).await;
    let reasons: Vec<_> = lines.iter().map(|it| it["reason"].as_str().unwrap_or("")).collect();
    assert_eq!(reasons, ["denied", "denied", "denied", ""]);
    assert_eq!((&lines[0]["remote_addr"], &lines[0]["status"]), (&"198.51.100.7".into(), &403.into()));
    assert_eq!(daemon.log().matches("requests are refused").count(), 1, "a flood is told once: {}", daemon.log());
}

/// A file that has just been given to somebody is at hand, and is not for everybody for that.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_at_hand_is_not_given_to_who_is_kept_out() {
    let site = "[backends.\"a.test\"]\nroot = \"{dir}/www\"\n";
    let config = |security: &str| format!("{SERVER}{security}{site}").replace("workers = 2", "workers = 1");
    let closed = config("[security]\ndeny = [\"198.51.100.0/24\"]\n");
    let daemon = Daemon::builder(&closed).file("www/a.txt", "content").start().await;
    let mut friend = from(&daemon, 1, "192.0.2.1").await;
    let mut stranger = from(&daemon, 1, "198.51.100.1").await;
    let request = get("/a.txt", "a.test", "");
    let both = async |friend: &mut _, stranger: &mut _, expected: u16| {
        for _ in 0..5 {
            let (head, body) = ask(friend, &request).await.expect("an answer");
            assert_eq!((status(&head), &*body), (200, "content"));
            let (head, _) = ask(stranger, &request).await.expect("an answer");
            assert_eq!((status(&head), field(&head, "miwi-reason").is_empty()), (expected, expected == 200));
        }
    };
    both(&mut friend, &mut stranger, 403).await;
    daemon.rewrite_config(&config(""));
    assert_eq!(daemon.reload().await.status, 0);
    both(&mut friend, &mut stranger, 200).await;
    // Connections that are open hear of it as well.
    daemon.rewrite_config(&closed);
    assert_eq!(daemon.reload().await.status, 0);
    both(&mut friend, &mut stranger, 403).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_reports_lets_everybody_in_and_says_whom_it_would_not() {
    let security = "[security]\nallow = [\"10.0.0.0/8\"]\nmode = \"report\"\n";
    let daemon = Daemon::builder(&format!("{SERVER}{LOG}{security}{SITES}")).file("www/a.txt", "a").start().await;
    for (peer, host) in [("198.51.100.1", "a.test"), ("10.0.0.1", "a.test"), ("198.51.100.1", "a.test")] {
        assert_eq!(asked(&daemon, peer, host, "/a.txt").await, served(), "{peer}");
    }
    counted(&daemon, "miwid_policy_refusals_total{reason=\"denied\",mode=\"report\"}", 2).await;
    counted(&daemon, "miwid_policy_refusals_total{reason=\"denied\",mode=\"enforce\"}", 0).await;
    let reasons: Vec<_> = logged(&daemon, 3).await.iter().map(|it| it["reason"].clone()).collect();
    assert_eq!(reasons.iter().filter(|it| **it == "would-deny").count(), 2, "{reasons:?}");
    assert_eq!(daemon.log().matches("requests would be refused").count(), 1, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_none_is_told_with_its_place_and_a_hint() {
    for key in ["allow", "deny", "ip_whitelist", "rate_limit_exempt"] {
        let text = format!("{SERVER}[security]\n{key} = [\"10.0.0.0/33\"]\n{SITES}");
        let output = Daemon::builder(&text).check(&[]).await;
        let said = output.all();
        assert_ne!(output.status, 0, "{said}");
        let written = format!("| {key} = [\"10.0.0.0/33\"]");
        for part in ["miwid.toml:11:", &format!("security.{key}[0]"), &written, "help: write \"192.168.1.0/24\""] {
            assert!(said.contains(part), "{part} is missing in {said}");
        }
    }
}
