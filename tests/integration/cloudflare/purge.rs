//! What leaves Cloudflare's caches.

use harness::{
    Builder, Daemon,
    cloudflare::{Cloudflare, RetryAfter, Right, Rule, Then},
};
use serde_json::json;
use tempfile::TempDir;

fn builder(double: &Cloudflare, own: &TempDir, more: &str) -> Builder {
    std::fs::write(own.path().join("ca.pem"), double.ca()).unwrap();
    let text = format!(
        "[cloudflare]\napi_token = \"{}\"\napi_base = \"{}\"\n{more}\
         [backends.\"shop.example.com\"]\nrespond = {{ status = 200, body = \"a\" }}\n",
        Cloudflare::TOKEN,
        double.base()
    );
    Daemon::builder(&text).env("SSL_CERT_FILE", own.path().join("ca.pem"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_is_purged_thirty_at_a_time_in_the_zone_it_is_in() {
    let (double, own) = (Cloudflare::start().await, tempfile::tempdir().unwrap());
    let daemon = builder(&double, &own, "").start().await;
    let purge = async |args: &[&str]| daemon.ctl(&[&["cloudflare", "purge"], args].concat()).await;
    let urls: Vec<String> = (0..31).map(|it| format!("https://shop.example.com/{it}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).chain(["https://example.net/x"]).collect();
    let said = purge(&urls).await;
    assert_eq!((said.status, said.stdout.trim()), (0, "purged 32"), "{said:?}");
    let sizes: Vec<usize> =
        double.purged("example.com").iter().map(|it| it["files"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [30, 1]);
    assert_eq!(double.purged("example.net"), [json!({ "files": ["https://example.net/x"] })]);
    for (args, expected) in [
        (&["--tag", "shop", "--tag", "new"][..], json!({ "tags": ["shop", "new"] })),
        (&["--prefix", "shop.example.com/images"], json!({ "prefixes": ["shop.example.com/images"] })),
        (&["--host", "shop.example.com"], json!({ "hosts": ["shop.example.com"] })),
        (&["--all"], json!({ "purge_everything": true })),
    ] {
        assert_eq!(purge(args).await.status, 0, "{args:?}");
        assert_eq!(double.purged("example.com").last(), Some(&expected));
    }
    assert_eq!(purge(&["--all", "--zone", "www.example.net"]).await.status, 0);
    assert_eq!(double.purged("example.net").last(), Some(&json!({ "purge_everything": true })));
    assert_eq!(double.violations(), [""; 0]);
    assert!(daemon.log().contains("cloudflare purge"), "it is in the audit log: {}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_cannot_be_says_why() {
    let (double, own) = (Cloudflare::start().await, tempfile::tempdir().unwrap());
    let daemon = builder(&double, &own, "").start().await;
    let error = async |args: &[&str]| {
        let said = daemon.ctl_json(&[&["cloudflare", "purge"], args].concat()).await;
        (said["error"]["code"].as_str().unwrap().to_owned(), said["error"]["hint"].as_str().unwrap().to_owned())
    };
    assert_eq!(error(&["shop.example.com/x"]).await.0, "config");
    assert_eq!(error(&["--tag", "two words"]).await.0, "config");
    assert_eq!(error(&["https://example.org/x"]).await.0, "config", "it is nobody's zone");
    double.update_token(Cloudflare::TOKEN, |it| it.rights.retain(|(_, right)| *right != Right::CachePurge));
    let (code, hint) = error(&["--all"]).await;
    assert_eq!((&*code, hint.contains("Cache Purge")), ("auth", true), "{hint}");
    double.rule(Rule::new("POST", "/zones", Then::RateLimit(RetryAfter::Seconds(7))));
    assert_eq!(error(&["--all"]).await.0, "throttled");
    assert_eq!(double.purged("example.com").len(), 0);
    assert_eq!(daemon.ctl(&["cloudflare", "purge"]).await.status, 2, "nothing is named");
}
