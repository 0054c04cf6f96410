//! `[security.headers]` on every kind of answer. That answers from memory carry them too is shown by the group `shelf`.

use bytes::Bytes;
use harness::{Daemon, Origin, Reply};
use http::{Request, header};

const CONFIG: &str = r#"
[server]
trusted_proxies = ["127.0.0.1"]

[security.headers]
strict_transport_security = "max-age=31536000"
x_frame_options = "DENY"
server = ""

[backends."a.test"]
url = "{origin}"

[backends."a.test".routes."/files/"]
root = "{dir}/www"
strip_prefix = true

[backends."a.test".routes."/old"]
redirect = "/new"

[backends."a.test".routes."/own/"]
respond = { status = 200, body = "own" }

[backends."a.test".routes."/own/".security.headers]
x_frame_options = "SAMEORIGIN"
x_more = "1"

[backends."gone.test"]
url = "http://127.0.0.1:1"
"#;

async fn ask(daemon: &Daemon, host: &str, path: &str, scheme: &str) -> Reply {
    let request = Request::get(path).header(header::HOST, host).header("x-forwarded-proto", scheme);
    daemon.request(request.body(Bytes::new()).expect("a request")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_them_and_only_https_has_strict_transport_security() {
    let origin = Origin::start("origin").await;
    let text = CONFIG.replace("{origin}", &origin.url());
    let daemon = Daemon::builder(&text).file("www/x", "x").start().await;
    let long = format!("/{}", "x".repeat(9000));
    for (host, path, status, frame) in [
        ("a.test", "/", 200, "DENY"),
        ("a.test", "/files/x", 200, "DENY"),
        ("a.test", "/files/missing", 404, "DENY"),
        ("a.test", "/old", 302, "DENY"),
        ("a.test", "/own/", 200, "SAMEORIGIN"),
        ("a.test", &long, 414, "DENY"),
        ("gone.test", "/", 502, "DENY"),
        ("nobody.test", "/", 404, "DENY"),
    ] {
        for (scheme, strict) in [("http", ""), ("https", "max-age=31536000")] {
            let reply = ask(&daemon, host, path, scheme).await;
            assert_eq!(reply.status, status, "{host}{path:.20}");
            assert_eq!(reply.header("x-frame-options"), frame, "{host}{path:.20}");
            assert_eq!(reply.header("x-more"), if frame == "DENY" { "" } else { "1" }, "{host}{path:.20}");
            assert_eq!(reply.header("server"), "", "an empty value removes: {host}{path:.20}");
            // Limits are looked at before anybody is believed, so the refusal is that of the connection.
            let expected = if status == 414 { "" } else { strict };
            assert_eq!(reply.header("strict-transport-security"), expected, "{scheme} {host}{path:.20}");
        }
    }
    // Health pages are for those who come without a proxy.
    let health = daemon.get_host("localhost", "/health").await;
    assert_eq!((health.status, health.header("x-frame-options")), (200, "DENY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_app_says_itself_stays_and_a_reload_changes_the_rest() {
    let reply =
        b"HTTP/1.1 200 OK\r\nx-frame-options: SAMEORIGIN\r\nx-powered-by: Express\r\ncontent-length: 2\r\n\r\nok";
    let origin = harness::RawOrigin::start(reply).await;
    let text = |more: &str| {
        format!(
            "[backends.\"a.test\"]\nurl = \"{}\"\n[security.headers]\nx_frame_options = \"DENY\"\n{more}",
            origin.url()
        )
    };
    let daemon = Daemon::start(&text("x_powered_by = \"\"\n")).await;
    let reply = daemon.get_host("a.test", "/").await;
    assert_eq!((reply.header("x-frame-options"), reply.header("x-powered-by")), ("SAMEORIGIN", ""));
    daemon.rewrite_config(&text(""));
    daemon.reload().await;
    assert_eq!(daemon.get_host("a.test", "/").await.header("x-powered-by"), "Express");
}
