//! `miwictl cert`: what operators type, and what they and their scripts get.

use harness::{cloudflare::Right, wait};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use super::world::{DAY, DOMAINS, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_host_gets_a_certificate_at_runtime_and_keeps_it_until_it_is_removed() {
    let world = World::start("").await;
    let generation = world.daemon.ctl_json(&["status"]).await["config_generation"].clone();
    assert!(!world.shown("app.example.com").await.is_cloudflares());
    let said = world.daemon.ctl_json(&["cert", "request", "app.example.com"]).await;
    let operation = &said["operations"][0];
    assert_eq!((&operation["state"], &operation["target"]), (&"done".into(), &"app.example.com".into()), "{said:#}");
    let first = world.shown("app.example.com").await;
    assert!(first.is_cloudflares());
    let after = world.daemon.ctl_json(&["status"]).await;
    assert_eq!(after["config_generation"], generation, "no reload");
    let shown = world.daemon.ctl_json(&["cert", "show", "app.example.com"]).await;
    for key in ["name", "hosts", "issuer", "not_before", "not_after", "serial", "sha256", "next_renewal"] {
        assert!(!shown[key].is_null(), "{key}: {shown:#}");
    }
    assert!(shown["last_error"].is_null() && shown["origin"] == "operator", "{shown:#}");

    // A host that no site has.
    assert_eq!(world.request(&["new.example.com", "*.new.example.com"]).await.status, 0);
    assert!(world.shown("new.example.com").await.is_cloudflares());
    assert!(world.shown("a.new.example.com").await.is_cloudflares());

    let again = world.request(&["app.example.com"]).await;
    assert!(again.status == 0 && again.stdout.contains("there already"), "{again:?}");
    assert_eq!(world.posts(), 2);
    let world = world.restart("").await;
    assert_eq!(world.shown("app.example.com").await, first, "from the disk");
    world.advance(DAY * 62);
    wait::until(wait::LATER, "it was renewed", async || world.shown("app.example.com").await.serial != first.serial)
        .await;

    assert_eq!(world.daemon.ctl(&["cert", "remove", "app.example.com"]).await.status, 0);
    assert!(!world.shown("app.example.com").await.is_cloudflares());
    assert!(world.certificate("app.example.com").await.is_null());
    let world = world.restart("").await;
    assert!(!world.shown("app.example.com").await.is_cloudflares());
    assert!(world.shown("new.example.com").await.is_cloudflares());
    assert_eq!(world.double.violations(), [""; 0]);
}

// F40
#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_certificate_holds_are_refused_before_anybody_is_asked() {
    let world = World::start("").await;
    for name in ["*.com", "*.*.example.com", "192.0.2.1", "localhost", "bücher.example.com", "a_b.example.com"] {
        let said = world.request(&[name]).await;
        assert!(said.status == 6 && said.stderr.contains("hint:"), "{name}: {said:?}");
    }
    let many: Vec<String> = (0..201).map(|it| format!("h{it}.example.com")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(world.request(&many).await.status, 6, "F39");
    assert_eq!(world.posts(), 0);
    let mixed = ["--name", "mixed", "B.Example.com.", "b.example.com", "A.example.COM"];
    assert_eq!(world.request(&mixed).await.status, 0);
    assert_eq!(world.double.certificates()[0].hostnames, ["a.example.com", "b.example.com"]);
    assert_eq!(world.request(&many[..200]).await.status, 0, "F39: 200 are fine");
    assert_eq!(world.double.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_asked_and_asks_nobody() {
    let world = World::start("").await;
    let said = world.request(&["--dry-run", "app.example.com"]).await;
    assert!(said.status == 0 && said.stdout.contains("cloudflare-origin would be asked"), "{said:?}");
    assert_eq!((world.posts(), world.list().await.len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why_what_to_do_and_leave_nothing_behind() {
    let world = World::start(DOMAINS).await;
    world.issued("default").await;
    let error = async |args: &[&str]| {
        let said = world.daemon.ctl_json(args).await["error"].clone();
        (said["exit"].as_u64().unwrap_or_default(), said["code"].as_str().unwrap_or_default().to_owned(), said)
    };
    let (exit, code, said) = error(&["cert", "request", "shop.example.org"]).await;
    assert_eq!((exit, &*code), (6, "config"), "{said:#}");
    assert!(said["message"].as_str().unwrap().contains("shop.example.org"), "{said:#}");
    assert!(said["hint"].as_str().unwrap().contains("zone"), "{said:#}");
    assert!(world.certificate("shop.example.org").await.is_null(), "nobody tries for ever what an operator mistyped");

    world.double.update_token(harness::cloudflare::Cloudflare::TOKEN, |it| {
        it.rights.retain(|(_, right)| *right != Right::SslEdit)
    });
    let (exit, code, said) = error(&["cert", "request", "a.example.com"]).await;
    assert_eq!((exit, &*code), (6, "auth"), "{said:#}");
    assert!(said["hint"].as_str().unwrap().contains("SSL and Certificates"), "{said:#}");

    assert_eq!(error(&["cert", "show", "defualt"]).await.0, 5);
    assert!(error(&["cert", "show", "defualt"]).await.2["hint"].as_str().unwrap().contains("default"));
    assert_eq!(error(&["cert", "renew", "nobody"]).await.0, 5);
    assert_eq!(error(&["cert", "remove", "default"]).await.0, 8, "the configuration wants it");
    assert_eq!(error(&["cert", "request", "--name", "default", "b.example.com"]).await.0, 8);
    assert_eq!(error(&["cert", "revoke", "default"]).await.0, 8, "it is in use");
    assert_eq!(world.daemon.ctl(&["cert", "request"]).await.status, 2);
    assert_eq!(world.daemon.ctl(&["cert", "request", "--validity", "91", "a.example.com"]).await.status, 2);
    let renewed = world.daemon.ctl_ok(&["cert", "renew", "--all"]).await;
    assert!(renewed.stdout.contains("not due"), "{renewed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_shown_no_more() {
    let world = World::start(DOMAINS).await;
    world.issued("default").await;
    let first = world.shown("app.example.com").await;
    world.daemon.ctl_ok(&["cert", "revoke", "default", "--force"]).await;
    assert!(world.double.certificates()[0].revoked_at.is_some());
    assert!(!world.daemon.log().contains("cannot be used"));
    // The configuration still wants one.
    wait::until(wait::LATER, "another is there", async || {
        let shown = world.shown("app.example.com").await;
        shown.is_cloudflares() && shown.serial != first.serial
    })
    .await;
    assert_eq!(world.request(&["b.example.org", "--issuer", "local"]).await.status, 0);
    assert_eq!(
        world.daemon.ctl(&["cert", "revoke", "b.example.org", "--force"]).await.status,
        6,
        "nobody revokes that"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_from_elsewhere_are_imported_shown_and_never_renewed() {
    let world = World::start("").await;
    let pair = |host: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let (cert, key) = pair("app.example.com");
    let (_, other) = pair("app.example.com");
    world.daemon.write("c.pem", &cert);
    world.daemon.write("k.pem", &key);
    world.daemon.write("other.pem", &other);
    let import = async |key: &str| {
        let path = |it: &str| world.daemon.dir().join(it).display().to_string();
        world.daemon.ctl(&["cert", "import", "--cert", &path("c.pem"), "--key", &path(key)]).await
    };
    let said = import("other.pem").await;
    assert!(said.status == 6 && said.stderr.contains("another key"), "{said:?}");
    assert_eq!(import("gone.pem").await.status, 6);
    assert_eq!(import("k.pem").await.status, 0);
    let first = world.shown("app.example.com").await;
    assert!(!first.issuer.contains("miwid"), "{first:?}");
    let shown = world.daemon.ctl_json(&["cert", "show", "app.example.com"]).await;
    assert!(shown["next_renewal"].is_null(), "{shown:#}");
    assert_eq!(world.daemon.ctl(&["cert", "renew", "app.example.com"]).await.status, 8);
    world.advance(DAY * 365);
    let world = world.restart("").await;
    assert_eq!((world.shown("app.example.com").await, world.posts()), (first, 0));
    world.daemon.ctl_ok(&["cert", "remove", "app.example.com"]).await;
    assert!(world.shown("app.example.com").await.issuer.contains("miwid"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_tells_end_renewal_and_failures() {
    let world = World::start(DOMAINS).await;
    world.issued("default").await;
    let metrics = async || world.daemon.get("/metrics").await.text();
    let value = |text: &str, name: &str| -> Option<f64> {
        text.lines().find_map(|it| it.strip_prefix(name)?.trim().parse().ok())
    };
    let text = metrics().await;
    let end = value(&text, "miwid_certificate_expiry_seconds{name=\"default\"}").unwrap();
    assert!((89.0..91.0).contains(&(end / 86_400.0)), "{text}");
    assert!(value(&text, "miwid_certificate_renewal_seconds{name=\"default\"}").unwrap() < end);
    assert_eq!(value(&text, "miwid_certificate_requests_total{result=\"issued\"}"), Some(1.0));
    world.double.update_token(harness::cloudflare::Cloudflare::TOKEN, |it| it.rights.clear());
    assert_eq!(world.daemon.ctl(&["cert", "renew", "default", "--force"]).await.status, 6);
    let text = metrics().await;
    assert_eq!(value(&text, "miwid_certificate_failed_attempts{name=\"default\"}"), Some(1.0));
    assert_eq!(value(&text, "miwid_certificate_requests_total{result=\"auth\"}"), Some(1.0));
    let failing: Value = world.certificate("default").await;
    assert_eq!(failing["state"], "failing");
}
