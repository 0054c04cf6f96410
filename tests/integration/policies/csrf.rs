//! `enable_csrf`: a page of another site changes nothing, and everybody else may.

use std::{path::Path, process::Stdio};

use harness::{Daemon, Origin, skip, wait};

use super::{SERVER, counted, told};

const SECURITY: &str = "[security]\nenable_csrf = true\ncsrf_trusted_origins = [\"https://partner.example\"]\n\
                        csrf_exempt_paths = [\"/hooks\"]\n";

fn post(path: &str, fields: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 2\r\n{fields}\r\nhi")
}

fn served() -> (u16, String) {
    (200, String::new())
}

fn refused() -> (u16, String) {
    (403, "csrf".to_owned())
}

const CROSS: &str = "sec-fetch-site: cross-site\r\norigin: https://evil.example\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_pages_of_other_sites_send_reaches_no_app() {
    let origin = Origin::start("origin").await;
    let site = format!("[backends.\"shop.test\"]\nurl = \"{}\"\n", origin.url());
    let daemon = Daemon::start(&format!("{SERVER}{SECURITY}{site}")).await;
    for (request, expected) in [
        (post("/", ""), served()),
        (post("/", "sec-fetch-site: same-origin\r\norigin: https://shop.test\r\n"), served()),
        (post("/", "origin: https://shop.test\r\n"), served()),
        (post("/", CROSS), refused()),
        (post("/", "sec-fetch-site: same-site\r\norigin: https://blog.shop.test\r\n"), refused()),
        (post("/", "origin: https://evil.example\r\n"), refused()),
        (post("/", "origin: null\r\n"), refused()),
        (post("/", "sec-fetch-site: cross-site\r\norigin: https://partner.example\r\n"), served()),
        (post("/hooks/paid", CROSS), served()),
        (post("/%68ooks/paid", CROSS), served()),
        (post("/hooks/../account", CROSS), refused()),
        (post("/hooks/%2e%2e/account", CROSS), refused()),
        (post("/", CROSS).replace("POST", "DELETE"), refused()),
        (post("/", CROSS).replace("POST", "GET"), served()),
    ] {
        let before = origin.requests();
        assert_eq!(told(&daemon, "192.0.2.1", &request).await, expected, "{request}");
        assert_eq!(origin.requests() - before, usize::from(expected.0 == 200), "{request}");
    }
    counted(&daemon, "miwid_policy_refusals_total{reason=\"csrf\",mode=\"enforce\"}", 7).await;
    daemon.rewrite_config(&format!("{SERVER}{SECURITY}mode = \"report\"\n{site}"));
    assert_eq!(daemon.reload().await.status, 0);
    assert_eq!(told(&daemon, "192.0.2.1", &post("/", CROSS)).await, served());
    counted(&daemon, "miwid_policy_refusals_total{reason=\"csrf\",mode=\"report\"}", 1).await;
}

/// A page of `evil.localhost` that sends what a form can send, and then reads what it may.
const EVIL: &str = r#"<!doctype html><pre id="seen"></pre><script>
const there = "http://shop.localhost:" + location.port;
const ask = async (path, options) => {
    try { return (await fetch(there + path, options)).status; } catch { return "unread"; }
};
(async () => {
    await fetch(there + "/form", { method: "POST", mode: "no-cors", body: "a=1" }).catch(() => {});
    const seen = [
        await ask("/app"), await ask("/app", { method: "PUT" }), await ask("/app", { method: "POST", body: "a=1" }),
    ];
    document.getElementById("seen").textContent = "seen: " + seen.join(" ") + " :seen";
})();
</script>"#;

async fn browse(daemon: &Daemon, host: &str) -> String {
    let browser = tokio::process::Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--virtual-time-budget=15000", "--timeout=15000", "--dump-dom"])
        .arg("--host-resolver-rules=MAP * 127.0.0.1")
        .arg(format!("--user-data-dir={}", daemon.dir().join(format!("profile-{host}")).display()))
        .arg(format!("http://{host}:{}/page.html", daemon.http().port()))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(wait::LATER, browser).await.expect("chromium ends").expect("chromium runs");
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    let seen = page.split("seen: ").nth(1).and_then(|it| it.split(" :seen").next());
    seen.unwrap_or_else(|| panic!("{page}\n{}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_says_where_its_pages_come_from_and_reads_what_it_may() {
    if !Path::new("/usr/bin/chromium").exists() {
        skip!("chromium is not installed");
    }
    let origin = Origin::start("origin").await;
    let config = format!(
        "[security]\nenable_csrf = true\nenable_cors = true\ncsrf_trusted_origins = [\"http://friend.localhost:{{port}}\"]\n\
         cors_origins = [\"http://friend.localhost:{{port}}\", \"http://reader.localhost:{{port}}\"]\n\
         [backends.\"shop.localhost\"]\nurl = \"{}\"\n\
         [backends.\"*.localhost\"]\nroot = \"{{dir}}/www\"\n",
        origin.url()
    );
    let daemon = Daemon::builder(&config).file("www/page.html", EVIL).start().await;
    let mut before = 0;
    // Of the four that a page sends, these reach the app: all; the one that only reads; the same, unread.
    for (host, seen, reached) in [
        ("friend.localhost", "200 200 200", 4),
        ("reader.localhost", "200 403 403", 1),
        ("evil.localhost", "unread unread unread", 1),
    ] {
        assert_eq!(browse(&daemon, host).await, seen, "{host}");
        assert_eq!(origin.requests() - before, reached, "{host}: {:?}", origin.seen());
        before = origin.requests();
    }
}
