//! ACME where Pebble cannot go: what an authority says about renewals, and every way in which it can say no.

use std::{path::Path, time::Duration};

use harness::{
    Builder, Daemon,
    acme::{Authority, Step, Window},
    cloudflare::{Cloudflare, Rule, Then},
    wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::world::DAY;

struct World {
    authority: Authority,
    daemon: Daemon,
    own: TempDir,
}

fn builder(authority: &Authority, own: &Path) -> Builder {
    let text = format!(
        "[server]\nhttps_port = {{port2}}\n[ssl]\nauto_cert = true\ndomains = [\"a.example.com\"]\nstorage = \"{}/store\"\n\
         [acme]\ndirectory = \"{}\"\n[backends.\"a.example.com\"]\nrespond = {{ status = 200, body = \"a\" }}\n",
        own.display(),
        authority.directory()
    );
    Daemon::builder(&text).env("MIWID_TEST_CLOCK", own.join("clock")).env("RUST_LOG", "debug")
}

impl World {
    async fn start() -> Self {
        Self::with(Authority::start().await).await
    }

    async fn with(authority: Authority) -> Self {
        let own = tempfile::tempdir().unwrap();
        std::fs::write(own.path().join("clock"), "0").unwrap();
        let daemon = builder(&authority, own.path()).start().await;
        Self { authority, daemon, own }
    }

    /// Both clocks.
    fn advance(&self, by: Duration) {
        let clock = self.own.path().join("clock");
        let before: u64 = std::fs::read_to_string(&clock).unwrap().parse().unwrap();
        let fresh = self.own.path().join("clock.new");
        std::fs::write(&fresh, (before + by.as_secs()).to_string()).unwrap();
        self.authority.advance(by);
        std::fs::rename(fresh, clock).unwrap();
    }

    async fn shown(&self) -> Value {
        self.daemon.ctl_json(&["cert", "show", "default"]).await
    }

    async fn ready(&self) -> Value {
        self.shown_where("the certificate is there", |it| it["issuer"] == "acme" && it["state"] == "ready").await
    }

    async fn shown_where(&self, what: &str, accept: impl Fn(&Value) -> bool) -> Value {
        wait::for_value(wait::LATER, what, || self.shown(), accept).await
    }

    /// The error of a request for this host; null when there was none.
    async fn request(&self, host: &str) -> Value {
        self.daemon.ctl_json(&["cert", "request", host]).await["error"].clone()
    }
}

/// Days from now until the next renewal, by the real clock.
fn days(shown: &Value) -> i64 {
    let text = shown["next_renewal"].as_str().unwrap();
    let date = |it: &str| -> i64 {
        let number = |range: std::ops::Range<usize>| it[range].parse::<i64>().unwrap();
        let (year, month, day) = (number(0..4), number(5..7), number(8..10));
        // Days by the civil calendar.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day
    };
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    // 1970-01-01 by the same count.
    date(text) - date("1970-01-01") - i64::try_from(now.as_secs() / 86_400).unwrap()
}

// F45
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_says_when_its_certificates_are_to_be_replaced() {
    let authority = Authority::start().await;
    authority.advise(Some(Window::Days(20, 22)), Some(3600));
    let world = World::with(authority).await;
    let first = world.ready().await;
    let advised = world.shown_where("the advice is heard", |it| (19..=22).contains(&days(it))).await;
    assert_eq!(advised["sha256"], first["sha256"]);
    // It is asked again, and means now.
    world.authority.advise(Some(Window::Days(-2, -1)), Some(3600));
    world.advance(DAY);
    world.shown_where("it was renewed", |it| it["state"] == "ready" && it["sha256"] != first["sha256"]).await;
    let signed = world.authority.signed();
    assert_eq!(world.authority.replacements(), [None, Some(signed[0].0.clone())]);
    // A window that is over as soon as the certificate is there is no reason to ask for ever.
    world.authority.advise(Some(Window::Days(40, 41)), Some(3600));
    world.advance(DAY);
    world.shown_where("another window", |it| (39..=43).contains(&days(it))).await;
    assert!(world.authority.signed().len() <= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_that_is_none_leaves_our_own_judgement() {
    let authority = Authority::start().await;
    let world = World::with(authority).await;
    let own = days(&world.ready().await);
    assert!((55..=61).contains(&own), "{own}");
    let window = |start: &str, end: &str| json!({ "suggestedWindow": { "start": start, "end": end } }).to_string();
    for text in [
        window("2030-01-02T00:00:00Z", "2030-01-01T00:00:00Z"),
        window("soon", "later"),
        "{}".to_owned(),
        "<html>".to_owned(),
        String::new(),
    ] {
        let asked = world.authority.count("GET /renewal-info/");
        world.authority.advise(Some(Window::Text(text.clone())), None);
        world.advance(Duration::from_secs(6 * 3600 + 60));
        wait::until(wait::LATER, "it is asked", async || world.authority.count("GET /renewal-info/") > asked).await;
        assert_eq!(days(&world.shown().await), own, "{text}");
    }
    for status in [404, 429, 500, 503] {
        let asked = world.authority.count("GET /renewal-info/");
        world.authority.advise(Some(Window::Refused(status)), None);
        world.advance(Duration::from_secs(6 * 3600 + 60));
        wait::until(wait::LATER, "it is asked", async || world.authority.count("GET /renewal-info/") > asked).await;
        assert_eq!(days(&world.shown().await), own, "{status}");
    }
    assert_eq!(world.authority.signed().len(), 1);
}

// F45
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_replaced_already_is_renewed_without_saying_so() {
    let authority = Authority::start().await;
    authority.advise(Some(Window::Days(20, 22)), Some(3600));
    let world = World::with(authority).await;
    world.shown_where("the advice is heard", |it| !it["next_renewal"].is_null() && (19..=22).contains(&days(it))).await;
    world.authority.replaced_elsewhere();
    world.daemon.ctl_ok(&["cert", "renew", "default", "--force"]).await;
    assert_eq!(world.authority.count("POST /new-order"), 3, "one of them was refused");
    assert_eq!(world.authority.replacements(), [None, None]);
    assert_eq!(world.authority.signed().len(), 2);
}

/// An account that was opened before the authority gave advice does not know how to name what is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn advice_that_an_authority_learns_to_give_later_is_followed() {
    let world = World::start().await;
    let first = world.ready().await;
    world.authority.advise(Some(Window::Days(-2, -1)), Some(3600));
    world.advance(Duration::from_secs(6 * 3600 + 60));
    world.shown_where("it was renewed", |it| it["state"] == "ready" && it["sha256"] != first["sha256"]).await;
}

/// Advice outlives the daemon that heard it.
#[tokio::test(flavor = "multi_thread")]
async fn advice_is_kept() {
    let authority = Authority::start().await;
    authority.advise(Some(Window::Days(20, 22)), Some(80_000));
    let world = World::with(authority).await;
    let heard = world
        .shown_where("the advice is heard", |it| !it["next_renewal"].is_null() && (19..=22).contains(&days(it)))
        .await;
    let asked = world.authority.count("GET /renewal-info/");
    let World { authority, daemon, own } = world;
    assert!(daemon.stop().await.success());
    let daemon = builder(&authority, own.path()).start().await;
    let world = World { authority, daemon, own };
    let shown = world.shown_where("it is there", |it| it["issuer"] == "acme").await;
    assert_eq!(shown["next_renewal"], heard["next_renewal"]);
    assert_eq!(world.authority.count("GET /renewal-info/"), asked, "it wanted to be asked later");
}

// F45
#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_told_in_the_authoritys_words_with_what_to_do() {
    let world = World::start().await;
    let first = world.ready().await;
    for (number, (step, kind, class, hint)) in [
        (Step::NewOrder, "rateLimited", "throttled", "count"),
        (Step::NewOrder, "rejectedIdentifier", "config", ""),
        (Step::NewOrder, "userActionRequired", "config", ""),
        (Step::Challenge, "unauthorized", "config", "port 80"),
        (Step::Challenge, "connection", "config", "port 80"),
        (Step::Challenge, "dns", "config", "lead here"),
        (Step::Challenge, "caa", "config", "CAA 0 issue \"double.example\""),
        (Step::Finalize, "badCSR", "config", ""),
        (Step::Order, "caa", "config", "CAA 0 issue \"double.example\""),
        (Step::Order, "serverInternal", "transient", "by itself"),
    ]
    .into_iter()
    .enumerate()
    {
        // A refusal that may pass is asked about three times by whoever waits.
        for _ in 0..if class == "transient" { 3 } else { 1 } {
            world.authority.refuse(step, kind, "in these words");
        }
        let error = world.request(&format!("h{number}.example.com")).await;
        assert_eq!((&error["code"], &error["exit"]), (&json!(class), &json!(6)), "{step:?} {kind}: {error:#}");
        assert!(error["message"].as_str().unwrap().contains("in these words"), "{step:?} {kind}: {error:#}");
        let said = error["hint"].as_str().unwrap();
        assert!(said.contains(hint) && !said.is_empty(), "{step:?} {kind}: {said}");
    }
    assert_eq!(world.shown().await["sha256"], first["sha256"], "what is there goes on");
    assert!(world.request("good.example.com").await.is_null(), "nothing is left of it");
}

// F45
#[tokio::test(flavor = "multi_thread")]
async fn nonces_that_are_not_good_enough_are_outlasted() {
    let world = World::start().await;
    world.ready().await;
    for count in [1, 2, 3, 4] {
        world.authority.spoil_nonces(count);
        let error = world.request(&format!("n{count}.example.com")).await;
        assert!(error.is_null(), "{count}: {error:#}");
    }
}

// F45
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_gone_is_made_again_and_another_directory_has_its_own() {
    let world = World::start().await;
    world.ready().await;
    world.authority.refuse(Step::NewOrder, "accountDoesNotExist", "who is that");
    let error = world.request("b.example.com").await;
    assert!(error.is_null(), "whoever waits is asked again for: {error:#}");
    assert_eq!(world.authority.count("POST /new-acct"), 2);
    let other = Authority::start().await;
    let text = std::fs::read_to_string(world.daemon.config_path()).unwrap();
    world.daemon.rewrite_config(&text.replace(&world.authority.directory(), &other.directory()));
    assert_eq!(world.daemon.reload().await.status, 0);
    assert!(world.request("c.example.com").await.is_null());
    assert_eq!((other.accounts(), other.signed().len()), (1, 1));
    world.daemon.rewrite_config(&text);
    assert_eq!(world.daemon.reload().await.status, 0);
    assert!(world.request("d.example.com").await.is_null());
    assert_eq!(world.authority.count("POST /new-acct"), 2, "its account is still known");
}

// F46
#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_broken_request_left_are_taken_away_by_a_later_one() {
    let (authority, own, double) = (Authority::start().await, tempfile::tempdir().unwrap(), Cloudflare::start().await);
    std::fs::write(own.path().join("clock"), "0").unwrap();
    std::fs::write(own.path().join("api-ca.pem"), double.ca()).unwrap();
    let cloudflare = format!("[cloudflare]\napi_token = \"{}\"\napi_base = \"{}\"\n", Cloudflare::TOKEN, double.base());
    let text = format!(
        "include = [\"cloudflare.toml\"]\n[server]\nhttps_port = {{port2}}\nenable_https = true\n\
         [ssl]\nstorage = \"{}/store\"\n[acme]\ndirectory = \"{}\"\n",
        own.path().display(),
        authority.directory()
    );
    let builder = Daemon::builder(&text).env("MIWID_TEST_CLOCK", own.path().join("clock"));
    let builder = builder.env("SSL_CERT_FILE", own.path().join("api-ca.pem")).file("cloudflare.toml", &cloudflare);
    let world = World { authority, daemon: builder.start().await, own };
    // The record is made, but its name is lost with the answer; and another is gone before it is taken away.
    double.rule(Rule::new("POST", "/zones", Then::ResetAfter).once());
    let gone = Then::Refuse { status: 404, code: 81044, message: "Record does not exist.".to_owned() };
    double.rule(Rule::new("DELETE", "/zones", gone).once());
    let ask = async || world.daemon.ctl(&["cert", "request", "--force", "--issuer", "acme", "*.example.net"]).await;
    let said = ask().await;
    assert_eq!(said.status, 0, "{said:?}\n{}", world.daemon.log());
    assert_eq!(double.records(), ["_acme-challenge.example.net"; 2]);
    assert!(!world.daemon.log().contains("stays in the zone"), "what is away is away");
    world.advance(Duration::from_secs(7200));
    double.advance(Duration::from_secs(7200));
    assert_eq!(ask().await.status, 0);
    assert_eq!((double.records(), double.violations()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_port_is_what_is_told_and_none_means_tls() {
    let world = World::start().await;
    world.ready().await;
    let text = std::fs::read_to_string(world.daemon.config_path()).unwrap();
    for (port, hint, kind) in [("8081", "port 8081", "http-01"), ("0", "lead here", "tls-alpn-01")] {
        world.daemon.rewrite_config(&text.replace("[acme]\n", &format!("[acme]\nhttp_port_public = {port}\n")));
        assert_eq!(world.daemon.reload().await.status, 0);
        world.authority.refuse(Step::Challenge, "connection", "nobody answers");
        let error = world.request(&format!("p{port}.example.com")).await;
        assert!(error["hint"].as_str().unwrap().contains(hint), "{error:#}");
        let asked = world.authority.requests().into_iter().rfind(|it| it.contains("/chall/")).unwrap();
        assert!(asked.ends_with(kind), "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_asked_for_and_a_wrong_one_is_told() {
    let world = World::start().await;
    world.ready().await;
    let text = std::fs::read_to_string(world.daemon.config_path()).unwrap();
    for (profile, code) in [("shortlived", Value::Null), ("none", json!("config"))] {
        world.daemon.rewrite_config(&text.replace("[acme]\n", &format!("[acme]\nprofile = \"{profile}\"\n")));
        assert_eq!(world.daemon.reload().await.status, 0);
        assert_eq!(world.request(&format!("{profile}.example.com")).await["code"], code);
    }
    assert_eq!(world.authority.profiles(), [None, Some("shortlived".to_owned())]);
}

// F44
#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_the_account_is_in_no_log_however_much_is_logged() {
    let (authority, own) = (Authority::start().await, tempfile::tempdir().unwrap());
    std::fs::write(own.path().join("clock"), "0").unwrap();
    let daemon = builder(&authority, own.path()).env("RUST_LOG", "trace").start().await;
    let world = World { authority, daemon, own };
    world.ready().await;
    let accounts = world.own.path().join("store/accounts");
    let account = std::fs::read_dir(accounts).unwrap().flatten().next().unwrap().path();
    let account = if account.is_dir() { account.join("account.json") } else { account };
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(account).unwrap()).unwrap();
    let secret = kept["key_pkcs8"].as_str().unwrap();
    assert!(secret.len() > 100);
    assert_eq!(world.daemon.get_host("nobody.test", "/").await.status, 404);
    let mut said = world.daemon.log();
    for args in [&["cert", "show", "default"][..], &["events"], &["config", "show"], &["status", "-o", "json"]] {
        said.push_str(&world.daemon.ctl(args).await.all());
    }
    assert!(said.contains("DEBUG") && said.contains("certificate.issued"), "much is logged: {said}");
    assert!(!said.contains(&secret[..40]) && !said.contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_asked_to_revoke() {
    let world = World::start().await;
    world.ready().await;
    assert!(world.request("b.example.com").await.is_null());
    let said = world.daemon.ctl_json(&["cert", "revoke", "b.example.com"]).await["error"].clone();
    assert_eq!(said["exit"], 8, "it is in use: {said:#}");
    world.authority.refuse(Step::Revoke, "serverInternal", "not now");
    assert_eq!(world.daemon.ctl(&["cert", "revoke", "b.example.com", "--force"]).await.status, 6);
    assert_eq!(world.daemon.ctl(&["cert", "revoke", "b.example.com", "--force"]).await.status, 0);
    assert_eq!(world.authority.signed().iter().map(|it| it.1).collect::<Vec<_>>(), [false, true]);
    // One that the configuration wants is requested again.
    let first = world.shown().await;
    assert_eq!(world.daemon.ctl(&["cert", "revoke", "default", "--force"]).await.status, 0);
    world
        .shown_where("another is there", |it| {
            it["state"] == "ready" && it["sha256"] != first["sha256"] && it["issuer"] == "acme"
        })
        .await;
}
