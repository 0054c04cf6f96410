//! The same over every version of HTTP, read by other people's clients.

use std::process::Stdio;

use harness::{Daemon, repository, skip, wait};
use tokio::process::Command;

use super::{CODINGS, text};

const CONFIG: &str = r#"
[server]
https_port = {port2}
enable_https = true
[ssl]
issuer = "local"
[compression]
[backends."localhost"]
root = "{dir}/www"
"#;

async fn daemon() -> Daemon {
    let builder = Daemon::builder(CONFIG).file("www/small.txt", &text(3000)).file("www/large.txt", &text(1 << 20));
    let daemon = builder.start().await;
    let root = daemon.ctl_ok(&["cert", "trust", "--print"]).await.stdout;
    daemon.write("ca.pem", &root);
    daemon
}

/// What a program writes to standard output and to standard error, when it ends well.
async fn output(command: &mut Command) -> (Vec<u8>, String) {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(wait::LATER, output).await.expect("it ends").expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (output.stdout, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_decodes_it_over_http_1_and_2() {
    let (version, _) = output(Command::new("curl").arg("--version")).await;
    let version = String::from_utf8_lossy(&version).into_owned();
    if !["brotli", "zstd", "nghttp2"].iter().all(|it| version.contains(it)) {
        skip!("this curl lacks brotli, zstd or HTTP/2");
    }
    let daemon = daemon().await;
    let plain = format!("http://localhost:{}", daemon.http().port());
    let secure = format!("https://localhost:{}", daemon.address(2).port());
    for (base, flag, spoken) in [
        (&plain, "--http1.1", "1.1"),
        (&plain, "--http2-prior-knowledge", "2"),
        (&secure, "--http1.1", "1.1"),
        (&secure, "--http2", "2"),
    ] {
        for (coding, (file, size)) in
            CODINGS.iter().flat_map(|it| [(it, ("small.txt", 3000)), (it, ("large.txt", 1 << 20))])
        {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "-4", "--compressed", flag, "--cacert"])
                .arg(daemon.dir().join("ca.pem"))
                .args(["-H", &format!("Accept-Encoding: {coding}")])
                .args(["-w", "%{stderr}%{http_version} %header{content-encoding} %header{vary}"])
                .arg(format!("{base}/{file}"));
            let (body, told) = output(&mut curl).await;
            assert_eq!(told, format!("{spoken} {coding} accept-encoding"), "{base} {flag} {file}");
            assert!(body == text(size).into_bytes(), "{base} {flag} {coding} {file}");
        }
    }
}

/// Asks over HTTP/3 alone and compares; libcurl decodes.
const OVER_HTTP3: &str = r#"
import sys
from curl_cffi import CurlHttpVersion, requests

port, ca, directory = sys.argv[1:]
for coding in ["zstd", "br", "gzip", "identity"]:
    for name in ["small.txt", "large.txt"]:
        def ask(method):
            return requests.request(method, f"https://localhost:{port}/{name}", http_version=CurlHttpVersion.V3ONLY,
                                    verify=ca, timeout=60, headers={"accept-encoding": coding})
        got, head = ask("GET"), ask("HEAD")
        expected = None if coding == "identity" else coding
        assert got.http_version == 30, got.http_version
        assert got.content == open(f"{directory}/{name}", "rb").read(), (coding, name, len(got.content))
        for answer in [got, head]:
            assert answer.headers.get("content-encoding") == expected, (coding, name, answer.headers)
            assert answer.headers.get("vary") == "accept-encoding", (coding, name, answer.headers)
        assert expected is None or head.headers.get("content-length") != "0", (coding, name, head.headers)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn it_is_the_same_over_http_3() {
    let python = repository().join("tests/.venv/bin/python");
    let able = Command::new(&python).args(["-c", "import curl_cffi"]).stderr(Stdio::null()).status().await;
    if !able.is_ok_and(|it| it.success()) {
        skip!("the Python clients of HTTP/3 are not installed (tests/run install)");
    }
    let daemon = daemon().await;
    let mut command = Command::new(&python);
    command
        .args(["-c", OVER_HTTP3, &daemon.address(2).port().to_string()])
        .arg(daemon.dir().join("ca.pem"))
        .arg(daemon.dir().join("www"));
    output(&mut command).await;
}
