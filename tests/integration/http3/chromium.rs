//! A real browser. It must say `h3` in its own protocol column.

use std::{path::Path, process::Stdio};

use harness::{Daemon, Origin, skip, wait};
use tokio::process::Command;

use super::devtools::Browser;

/// Shows the protocols of the page itself and of something that it asked for later.
const PAGE: &str = r#"<!doctype html><title>protocols</title><pre id="seen"></pre><script>
const shown = document.getElementById("seen");
const protocols = () => performance.getEntries().map(it => it.nextHopProtocol).filter(it => it).join(" ");
const ask = async left => {
    await fetch("/small.txt?" + left, { cache: "no-store" });
    shown.textContent = "seen: " + protocols() + " :seen";
    if (left > 0 && !protocols().includes("h3")) setTimeout(() => ask(left - 1), 200);
};
ask(20);
</script>"#;

async fn browse(daemon: &Daemon, flags: &[String]) -> String {
    let port = daemon.address(2).port();
    let profile = daemon.dir().join("profile");
    let browser = Command::new("chromium")
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP localhost 127.0.0.1",
        ])
        .args(["--virtual-time-budget=15000", "--timeout=15000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(flags)
        .arg(format!("https://localhost:{port}/protocols.html"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(wait::LATER, browser).await.expect("chromium ends").expect("chromium runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The fingerprint of the key that Chromium may trust although nobody it knows has signed it.
async fn key_fingerprint(daemon: &Daemon) -> String {
    let port = daemon.address(2).port();
    let script = format!(
        "openssl s_client -connect 127.0.0.1:{port} -servername localhost </dev/null 2>/dev/null | openssl x509 -pubkey -noout \
         | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64"
    );
    let output = Command::new("sh").args(["-c", &script]).output().await.expect("openssl runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_shows_h3() {
    if !Path::new("/usr/bin/chromium").exists() {
        skip!("chromium is not installed");
    }
    let origin = Origin::start("origin").await;
    let daemon = super::daemon(&origin).await;
    daemon.write("www/protocols.html", PAGE);
    let port = daemon.address(2).port();
    let trusted = format!("--ignore-certificate-errors-spki-list={}", key_fingerprint(&daemon).await);
    let forced = format!("--origin-to-force-quic-on=localhost:{port}");
    // It tries ::1 first for a name that stands for this machine, and the daemon of a test listens on 127.0.0.1 alone.
    let page = browse(&daemon, &[trusted, forced]).await;
    let seen = page.split("seen: ").nth(1).and_then(|it| it.split(" :seen").next()).unwrap_or_default();
    assert!(seen.split(' ').all(|it| it == "h3") && !seen.is_empty(), "{page}\n{}", daemon.read("access.log"));
}

/// The browser has no switch that takes away its other groups. It offers the hybrid first, so the answer takes it.
#[tokio::test(flavor = "multi_thread")]
async fn chromium_agrees_on_the_hybrid_group_over_tcp_and_quic() {
    if !Path::new("/usr/bin/chromium").exists() {
        skip!("chromium is not installed");
    }
    let origin = Origin::start("origin").await;
    let daemon = super::daemon(&origin).await;
    let port = daemon.address(2).port();
    let trusted = format!("--ignore-certificate-errors-spki-list={}", key_fingerprint(&daemon).await);
    let ways = [("h2", "--disable-quic".to_owned()), ("h3", format!("--origin-to-force-quic-on=localhost:{port}"))];
    for (protocol, flag) in ways {
        let mut browser = Browser::start(&daemon.dir().join(protocol), &[trusted.clone(), flag]).await;
        let response = browser.response(&format!("https://localhost:{port}/small.txt")).await;
        browser.close().await;
        let security = &response["securityDetails"];
        let seen = [&response["status"], &response["protocol"], &security["keyExchangeGroup"]];
        assert_eq!(
            seen.map(ToString::to_string),
            ["200", &format!("{protocol:?}"), "\"X25519MLKEM768\""],
            "{response}"
        );
    }
}
