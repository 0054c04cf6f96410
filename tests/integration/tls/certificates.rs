//! Certificates that come and go: renewed files, bad files, the local CA, and what the operator hears of them.

use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use harness::{Daemon, wait};

use super::{Authority, Wants, ask, client, config, connect, site, status, with};

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_file_is_swapped_without_a_failed_request() {
    let authority = Authority::new();
    let daemon = with(&config("", &site("a.test")), &authority, &["a.test"]).start().await;
    let shown = || async { daemon.ctl_json(&["cert", "show", "a.test"]).await["sha256"].as_str().unwrap().to_owned() };
    let before = shown().await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let plain = client(&authority.pem, &Wants::default());
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (stop, done, plain, at) = (stop.clone(), done.clone(), plain.clone(), daemon.address(2));
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(status(at, "a.test", "a.test", &plain).await.expect("no handshake fails"), 200);
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    wait::until(wait::SOON, "requests flow", || async { done.load(Ordering::Relaxed) >= 8 }).await;
    let mut kept = connect(daemon.address(2), "a.test", &plain).await.unwrap();
    for _ in 0..3 {
        let target = done.load(Ordering::Relaxed) + 8;
        let renewed = authority.issue(&["a.test"]);
        daemon.write("cert.pem", &renewed.cert);
        daemon.write("key.pem", &renewed.key);
        let report = daemon.ctl_json(&["reload"]).await;
        assert_eq!(report["result"], "applied", "{report}");
        let expected = serde_json::json!([{ "kind": "certificate", "name": "default", "action": "changed" }]);
        assert_eq!(report["changes"], expected);
        wait::until(wait::SOON, "requests flow", || async { done.load(Ordering::Relaxed) >= target }).await;
    }
    assert!(ask(&mut kept, "a.test").await.unwrap().starts_with("HTTP/1.1 200"), "open connections go on");
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert_ne!(shown().await, before);
    assert_eq!(daemon.ctl_json(&["reload"]).await["result"], "unchanged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_refused_with_its_place_and_a_remedy_and_changes_nothing() {
    let authority = Authority::new();
    let daemon = with(&config("", &site("a.test")), &authority, &["a.test"]).start().await;
    let (good, other) = (daemon.read("cert.pem"), authority.issue(&["a.test"]));
    let cases = [
        ("cert.pem", "nonsense", "ssl.cert", "there is no certificate in"),
        ("cert.pem", &other.cert, "ssl.key", "the key does not belong to the certificate"),
        ("key.pem", "nonsense", "ssl.key", "there is no usable private key in"),
    ];
    for (file, content, key, told) in cases {
        let kept = daemon.read(file);
        daemon.write(file, content);
        let report = daemon.ctl_json(&["reload"]).await;
        daemon.write(file, &kept);
        let text = report.to_string();
        assert!(text.contains("rejected") && text.contains(told) && text.contains(key), "{text}");
        let problem = &report["problems"][0];
        assert!(problem["line"].as_u64() > Some(0) && problem["hint"].is_string(), "{text}");
        let plain = client(&authority.pem, &Wants::default());
        assert_eq!(status(daemon.address(2), "a.test", "a.test", &plain).await.unwrap(), 200);
    }
    assert_eq!(daemon.read("cert.pem"), good);
    let missing = Daemon::builder(&config("", &site("a.test"))).check(&[]).await;
    assert_eq!(missing.status, 6, "{missing:?}");
    assert!(missing.all().contains("cert.pem: No such file"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_and_foreign_certificates_are_warned_about() {
    let authority = Authority::new();
    let own =
        format!("{}[backends.\"a.test\".ssl]\ncert = \"{{dir}}/o.pem\"\nkey = \"{{dir}}/o.key\"\n", site("a.test"));
    let pair = authority.issue_until(&["b.test"], 2021);
    let checked = with(&config("", &own), &authority, &["x.test"])
        .file("o.pem", &pair.cert)
        .file("o.key", &pair.key)
        .check(&[])
        .await;
    assert_eq!(checked.status, 0, "{checked:?}");
    for told in ["the certificate has expired", "the certificate is for b.test, not for a.test"] {
        assert!(checked.all().contains(told), "{told}: {checked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_without_a_certificate_get_one_from_the_local_ca() {
    let text = format!("[server]\nhttps_port = {{port2}}\nenable_https = true\n{}", site("a.test"));
    let daemon = Daemon::start(&text).await;
    let root = daemon.ctl_ok(&["cert", "trust", "--print"]).await.stdout;
    let plain = client(&root, &Wants::default());
    assert_eq!(status(daemon.address(2), "a.test", "a.test", &plain).await.unwrap(), 200, "the root is all it takes");
    let status_of =
        wait::for_value(wait::SOON, "degraded", || daemon.ctl_json(&["status"]), |it| it["state"] == "degraded").await;
    assert!(status_of["reasons"].to_string().contains("a.test: the certificate is from the local CA"), "{status_of}");
    assert_eq!(status_of["certificates"][0]["issuer"], "local");
    assert_eq!(daemon.ctl_json(&["cert", "list"]).await["certificates"][0]["hosts"][0], "a.test");
    assert_eq!(daemon.ctl(&["cert", "show", "b.test"]).await.status, 5);
    assert_eq!(daemon.ctl(&["cert", "renew", "a.test"]).await.status, 8, "nobody was asked for that one");

    let directory = daemon.dir().join("state/certificates/local-ca");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join("ca.key")), 0o600);
    assert_eq!(std::fs::read_to_string(directory.join("ca.pem")).unwrap().trim(), root.trim());

    daemon.rewrite_config(&format!("{text}[ssl]\nissuer = \"local\"\n"));
    daemon.ctl_ok(&["reload"]).await;
    wait::until(wait::SOON, "asked for, it is no reason", || async {
        daemon.ctl_json(&["status"]).await["state"] == "ready"
    })
    .await;
}

/// In a mount namespace with stores of its own, so that the machine's are not touched.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_told_to_trust_the_root_does() {
    const SCRIPT: &str = r#"
        mount --make-rprivate /
        kept=$(mktemp -d) && cp -a /etc/ssl/certs/. "$kept"
        for store in /usr/local/share/ca-certificates /etc/ssl/certs; do mount -t tmpfs none "$store"; done
        cp -a "$kept"/. /etc/ssl/certs && rm -r "$kept"
        ask() { curl -sS --max-time 20 --resolve "a.test:$PORT:127.0.0.1" "https://a.test:$PORT/"; }
        ! ask || exit 3
        "$MIWICTL" --socket "$SOCKET" cert trust
        ask
    "#;
    let able = |program: &str, args: &[&str]| {
        std::process::Command::new(program).args(args).output().is_ok_and(|it| it.status.success())
    };
    if !harness::skip::is_root()
        || !able("unshare", &["--mount", "true"])
        || !able("which", &["update-ca-certificates"])
    {
        harness::skip!("needs root, mount namespaces and update-ca-certificates");
    }
    let text = format!("[server]\nhttps_port = {{port2}}\nenable_https = true\n{}", site("a.test"));
    let daemon = Daemon::start(&text).await;
    let output = tokio::process::Command::new("unshare")
        .args(["--mount", "sh", "-ec", SCRIPT])
        .env("PORT", daemon.address(2).port().to_string())
        .env("MIWICTL", harness::miwictl())
        .env("SOCKET", daemon.socket())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(wait::LATER, output).await.expect("it ends").expect("it runs");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("a.test"), "{said}{complained}");
    assert!(complained.contains("certificate"), "before, it is not trusted: {complained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_outlives_the_daemon_and_a_check_writes_nothing() {
    let text = "[server]\nhttps_port = {port2}\nenable_https = true\n[ssl]\nissuer = \"local\"\nstorage = \"STORE\"\n";
    let store = tempfile::tempdir().unwrap();
    let text = text.replace("STORE", &store.path().display().to_string()) + &site("a.test");
    assert_eq!(Daemon::builder(&text).check(&[]).await.status, 0);
    assert_eq!(std::fs::read_dir(store.path()).unwrap().count(), 0);
    let mut roots = Vec::new();
    for _ in 0..2 {
        let daemon = Daemon::start(&text).await;
        roots.push(daemon.ctl_ok(&["cert", "trust", "--print"]).await.stdout);
        assert!(daemon.stop().await.success());
    }
    assert_eq!(roots[0], roots[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_redirected_if_so_wished() {
    let text = format!(
        "[server]\nhttps_port = {{port2}}\nenable_https = true\nredirect_https = true\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [ssl]\nissuer = \"local\"\n{}",
        site("a.test")
    );
    let daemon = Daemon::start(&text).await;
    let moved = daemon.get_host("a.test", "/x?y=1").await;
    assert_eq!(moved.status, 308);
    assert_eq!(moved.header("location"), format!("https://a.test:{}/x?y=1", daemon.address(2).port()));
    assert_eq!(daemon.get_host("localhost", "/health").await.status, 200);
    assert_eq!(daemon.get_host("a.test", "/.well-known/acme-challenge/x").await.status, 200);
    for (name, value) in [("x-forwarded-proto", "https"), ("cf-visitor", "{\"scheme\":\"https\"}")] {
        let request = http::Request::get("/").header("host", "a.test").header(name, value);
        assert_eq!(daemon.request(request.body(bytes::Bytes::new()).unwrap()).await.status, 200, "{name}: no loop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_and_expiry_are_measured() {
    let authority = Authority::new();
    let text = config("", &site("a.test")) + "[admin]\nlisten = \"127.0.0.1:{port3}\"\n";
    let daemon = with(&text, &authority, &["a.test"]).start().await;
    let plain = client(&authority.pem, &Wants::default());
    for _ in 0..2 {
        status(daemon.address(2), "a.test", "a.test", &plain).await.unwrap();
    }
    connect(daemon.address(2), "b.test", &plain).await.unwrap_err();
    harness::raw_exchange(daemon.address(2), b"GET / HTTP/1.1\r\n\r\n", wait::SOON).await;
    wait::until(wait::SOON, "the log tells why", || async { daemon.log().contains(" DEBUG tls: handshake refused") })
        .await;
    let expected = [
        "miwid_tls_handshakes_total{result=\"full\"} 1",
        "miwid_tls_handshakes_total{result=\"resumed\"} 1",
        "miwid_tls_handshakes_total{result=\"unknown-name\"} 1",
        "miwid_tls_handshakes_total{result=\"failed\"} 1",
        "miwid_certificate_expiry_seconds{name=\"default\"}",
    ];
    let metrics = || async { harness::get(daemon.address(3), "localhost", "/metrics").await.unwrap().text() };
    wait::for_value(wait::SOON, "the metrics", metrics, |it| expected.iter().all(|line| it.contains(line))).await;
}
