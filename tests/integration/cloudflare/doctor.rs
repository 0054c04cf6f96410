//! `miwictl cloudflare check` names what was put wrong, one thing at a time.

use std::time::{Duration, SystemTime};

use harness::{
    Builder, Daemon,
    cloudflare::{Cloudflare, Right, Status, Token, Zone},
};
use tempfile::TempDir;

use crate::tls::client::Authority;

const HOST: &str = "shop.example.com";

/// A server that Cloudflare stands in front of as it should.
struct World {
    double: Cloudflare,
    own: TempDir,
}

impl World {
    async fn start() -> Self {
        let world = Self { double: Cloudflare::start().await, own: tempfile::tempdir().unwrap() };
        std::fs::write(world.own.path().join("ca.pem"), world.double.ca()).unwrap();
        std::fs::write(world.own.path().join("token"), Cloudflare::TOKEN).unwrap();
        world.double.update_zone("example.com", |it| it.lead(HOST, true));
        world
    }

    fn builder(&self, server: &str, cloudflare: &str, names: &[&str]) -> Builder {
        let pair = Authority::new().issue(names);
        let own = self.own.path().display();
        let text = format!(
            "[server]\nhttps_port = {{port2}}\n{server}\n[ssl]\ncert = \"{{dir}}/cert.pem\"\nkey = \"{{dir}}/key.pem\"\n\
             [cloudflare]\napi_token_file = \"{own}/token\"\napi_base = \"{}\"\n{cloudflare}\n\
             [backends.\"{HOST}\"]\nrespond = {{ status = 200, body = \"a\" }}\n",
            self.double.base()
        );
        let builder = Daemon::builder(&text).env("SSL_CERT_FILE", self.own.path().join("ca.pem"));
        builder.file("cert.pem", &pair.cert).file("key.pem", &pair.key)
    }
}

/// The words of what was found, and the exit code. Tests listen on whatever port is free, which Cloudflare would not find.
async fn found(daemon: &Daemon) -> (Vec<String>, i32) {
    let said = daemon.ctl(&["-o", "json", "cloudflare", "check"]).await;
    let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    assert!(document.get("error").is_none(), "what is found is no failure of the command");
    let words = document["findings"].as_array().unwrap().iter().map(|it| {
        assert!(!it["hint"].as_str().unwrap().is_empty(), "{it:#}");
        it["code"].as_str().unwrap().to_owned()
    });
    (words.filter(|it| it != "port").collect(), said.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_thing_that_is_put_wrong_is_named() {
    let world = World::start().await;
    let daemon = world.builder("", "trust = true", &[HOST]).start().await;
    assert_eq!(found(&daemon).await, (vec![], 0), "nothing is wrong yet");

    type Change = fn(&mut Zone);
    let cases: [(&str, Change, i32); 9] = [
        ("ssl-flexible", |it| it.set("ssl", "flexible"), 6),
        ("ssl-off", |it| it.set("ssl", "off"), 6),
        ("ssl-full", |it| it.set("ssl", "full"), 0),
        ("min-tls", |it| it.set("min_tls_version", "1.0"), 0),
        ("origin-pulls-unused", |it| it.set("tls_client_auth", "on"), 0),
        ("zone-paused", |it| it.is_paused = true, 6),
        ("zone-inactive", |it| it.is_active = false, 6),
        ("dns-grey", |it| it.lead(HOST, false), 6),
        ("dns-missing", |it| it.records.clear(), 6),
    ];
    for (expected, change, status) in cases {
        let mut before = None;
        world.double.update_zone("example.com", |it| {
            before = Some(it.clone());
            change(it);
        });
        assert_eq!(found(&daemon).await, (vec![expected.to_owned()], status));
        world.double.update_zone("example.com", |it| *it = before.unwrap());
    }
    assert_eq!(found(&daemon).await, (vec![], 0), "all is well again");
    assert_eq!(world.double.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_no_good_is_named_with_what_it_lacks() {
    let world = World::start().await;
    let daemon = world.builder("", "trust = true", &[HOST]).start().await;
    type Change = fn(&mut Token);
    let cases: [(&[&str], Change); 6] = [
        (&["token-disabled"], |it| it.status = Status::Disabled),
        (&["token-expired"], |it| it.status = Status::Expired),
        (&["token-expiring"], |it| it.expires_on = Some(SystemTime::now() + Duration::from_secs(86_400 * 5))),
        (&["rights-zone"], |it| it.rights.retain(|(_, right)| *right != Right::ZoneRead)),
        (&["dns-unknown"], |it| it.rights.retain(|(_, right)| *right != Right::DnsEdit)),
        (&["token-invalid"], |it| it.value = "cfut_another".to_owned()),
    ];
    for (expected, change) in cases {
        world.double.update_token(Cloudflare::TOKEN, change);
        let (words, _) = found(&daemon).await;
        assert!(expected.iter().all(|it| words.iter().any(|word| word == it)), "{expected:?} in {words:?}");
        let now = if words[0] == "token-invalid" { "cfut_another" } else { Cloudflare::TOKEN };
        world.double.update_token(now, |it| *it = Token::user(Cloudflare::TOKEN));
    }
    std::fs::write(world.own.path().join("token"), "cfut_nobody_knows_me").unwrap();
    let (words, status) = found(&daemon).await;
    assert_eq!((words.iter().any(|it| it == "token-invalid"), status), (true, 6), "{words:?}");
    assert!(!daemon.log().contains("cfut_nobody_knows_me"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_on_this_side_is_named() {
    let world = World::start().await;
    let cases: [(&str, &str, &[&str], &[&str]); 5] = [
        ("", "", &[HOST], &["trust-off", "keepalive"]),
        ("request_timeout = 120", "trust = true", &[HOST], &["timeout"]),
        ("limits.max_header_size = \"8KB\"", "trust = true", &[HOST], &["header-size"]),
        ("", "trust = true\norigin_pulls = true", &[HOST], &["origin-pulls-off"]),
        ("", "trust = true", &["other.example.com"], &["certificate-local"]),
    ];
    for (server, cloudflare, names, expected) in cases {
        let daemon = world.builder(server, cloudflare, names).start().await;
        assert_eq!(found(&daemon).await.0, expected, "{server} {cloudflare}");
    }
    let text = "[cloudflare]\ntrust = true\napi_base = \"http://127.0.0.1:1/\"\n[backends.\"shop.example.com\"]\nroot = \"{dir}\"\n";
    let daemon = Daemon::start(text).await;
    let (words, status) = found(&daemon).await;
    assert_eq!((words, status), (vec!["token-missing".to_owned(), "certificate-none".to_owned()], 6));
    let table = daemon.ctl(&["cloudflare", "check"]).await;
    assert!(table.stdout.contains("token-missing") && table.stderr.contains("hint:"), "{table:?}");
}
