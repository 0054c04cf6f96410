//! `enable_cors`: who may read answers is said here, whatever the app says, on every kind of answer.

use bytes::Bytes;
use harness::{Daemon, Origin, RawOrigin, Reply};
use http::Request;

use super::SERVER;
use crate::cloudflare::peer::{ask, from, get};

const OURS: &str = "https://example.com";
const THEIRS: &str = "https://evil.example";

const SECURITY: &str = "[security]\nenable_cors = true\ncors_origins = [\"https://example.com\"]\n";

async fn asked(daemon: &Daemon, method: &str, host: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path).header("host", host);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    daemon.request(request.body(Bytes::new()).expect("a request")).await
}

fn said(reply: &Reply) -> (u16, &str, &str) {
    (reply.status, reply.header("access-control-allow-origin"), reply.header("vary"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_answer_is_shared_with_the_named_origins_alone() {
    let origin = Origin::start("origin").await;
    let config = format!(
        "{SECURITY}deny = [\"192.0.2.1\"]\n[backends.\"a.test\"]\nroot = \"{{dir}}/www\"\n\
         [backends.\"a.test\".routes.\"/app\"]\nurl = \"{}\"\n\
         [backends.\"a.test\".routes.\"/gone\"]\nurl = \"http://127.0.0.1:1\"\n\
         [backends.\"a.test\".routes.\"/closed\"]\nrespond = {{ status = 200, body = \"b\" }}\nsecurity.deny = [\"127.0.0.1\"]\n\
         [backends.\"a.test\".routes.\"/plain\"]\nrespond = {{ status = 200, body = \"b\" }}\nsecurity.enable_cors = false\n",
        origin.url()
    );
    let daemon = Daemon::builder(&config).file("www/a.txt", "a").start().await;
    for (path, status) in [("/a.txt", 200), ("/none", 404), ("/app", 200), ("/gone", 502), ("/closed", 403)] {
        // Twice, so that an answer at hand would be seen.
        for _ in 0..2 {
            let reply = asked(&daemon, "GET", "a.test", path, &[("origin", OURS)]).await;
            assert_eq!(said(&reply), (status, OURS, "origin"), "{path}");
            assert_eq!(reply.header("access-control-allow-credentials"), "", "{path}");
            assert_eq!(
                said(&asked(&daemon, "GET", "a.test", path, &[("origin", THEIRS)]).await),
                (status, "", "origin")
            );
            assert_eq!(said(&asked(&daemon, "GET", "a.test", path, &[]).await), (status, "", "origin"));
        }
    }
    assert_eq!(said(&asked(&daemon, "GET", "a.test", "/plain", &[("origin", OURS)]).await), (200, "", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn preflights_are_answered_here_and_reach_no_app() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&format!("{SECURITY}[backends.\"a.test\"]\nurl = \"{}\"\n", origin.url())).await;
    let (method, fields) =
        (("access-control-request-method", "PUT"), ("access-control-request-headers", "content-type,x-a"));
    let reply = asked(&daemon, "OPTIONS", "a.test", "/x", &[("origin", OURS), method, fields]).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin"), reply.body.len()), (204, OURS, 0));
    assert_eq!(reply.header("access-control-allow-methods"), "PUT");
    assert_eq!(reply.header("access-control-allow-headers"), "content-type,x-a");
    assert_eq!(reply.header("access-control-max-age"), "600");
    let vary: Vec<_> = reply.headers.get_all("vary").iter().map(|it| it.to_str().expect("text")).collect();
    assert_eq!(vary, ["access-control-request-method, access-control-request-headers", "origin"]);
    let reply = asked(&daemon, "OPTIONS", "a.test", "/x", &[("origin", THEIRS), method, fields]).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, ""));
    assert_eq!(reply.header("access-control-allow-methods"), "");
    assert_eq!(origin.requests(), 0);
    // Any other OPTIONS is for the app.
    asked(&daemon, "OPTIONS", "a.test", "/x", &[("origin", OURS)]).await;
    asked(&daemon, "OPTIONS", "a.test", "/x", &[method]).await;
    assert_eq!(origin.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_app_says_of_origins_is_replaced_and_the_rest_stays() {
    let app = RawOrigin::start(
        b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\n\
          access-control-expose-headers: x-a\r\nvary: accept, Origin\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let config = |credentials: bool| {
        format!("{SECURITY}cors_credentials = {credentials}\n[backends.\"a.test\"]\nurl = \"{}\"\n", app.url())
    };
    let daemon = Daemon::start(&config(false)).await;
    for (from, with) in [(OURS, OURS), (THEIRS, "")] {
        let reply = asked(&daemon, "GET", "a.test", "/", &[("origin", from)]).await;
        assert_eq!(said(&reply), (200, with, "accept, Origin"));
        assert_eq!(reply.header("access-control-allow-credentials"), "");
        assert_eq!(reply.header("access-control-expose-headers"), "x-a");
    }
    daemon.rewrite_config(&config(true));
    assert_eq!(daemon.reload().await.status, 0);
    for (from, with, credentials) in [(OURS, OURS, "true"), (THEIRS, "", "")] {
        let reply = asked(&daemon, "GET", "a.test", "/", &[("origin", from)]).await;
        assert_eq!((said(&reply).1, reply.header("access-control-allow-credentials")), (with, credentials));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_can_read_so() {
    let config = format!(
        "{SERVER}{SECURITY}rate_limit = 1\n[backends.\"a.test\"]\nrespond = {{ status = 200, body = \"a\" }}\n"
    );
    let daemon = Daemon::start(&config).await;
    let mut stream = from(&daemon, 1, "192.0.2.7").await;
    for status in [200, 429] {
        let (head, _) =
            ask(&mut stream, &get("/", "a.test", "origin: https://example.com\r\n")).await.expect("an answer");
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
        assert!(head.contains("access-control-allow-origin: https://example.com\r\n"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_never_come_along_from_everywhere() {
    let text = "[security]\nenable_cors = true\ncors_origins = [\"*\"]\n";
    let site = "[backends.\"a.test\"]\nrespond = { status = 200, body = \"a\" }\n";
    let daemon = Daemon::start(&format!("{text}{site}")).await;
    let reply = asked(&daemon, "GET", "a.test", "/", &[("origin", THEIRS)]).await;
    assert_eq!(said(&reply), (200, "*", ""));
    assert_eq!(reply.header("access-control-allow-credentials"), "");
    let output = Daemon::builder(&format!("{text}cors_credentials = true\n{site}")).check(&[]).await;
    assert_ne!(output.status, 0);
    for part in ["security.cors_credentials", "miwid.toml:", "name the origins"] {
        assert!(output.all().contains(part), "{part} is missing in {}", output.all());
    }
}
