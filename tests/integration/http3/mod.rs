//! HTTP/3 through the eyes of other people's clients: aioquic, niquests, curl and Chromium.

use std::{path::PathBuf, process::Stdio};

use harness::{Daemon, Origin, repository, skip, wait};
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

mod chromium;
mod devtools;

const CONFIG: &str = r#"
[server]
https_port = {port2}
enable_https = true
workers = 2
[server.limits]
max_request_size = "60MB"
[ssl]
issuer = "local"
[logging.access_log]
enabled = true
path = "{dir}/access.log"
[backends."localhost"]
root = "{dir}/www"
"#;

fn python() -> Option<PathBuf> {
    let python = repository().join("tests/.venv/bin/python");
    let able = std::process::Command::new(&python)
        .args(["-c", "import aioquic, niquests, curl_cffi"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|it| it.success());
    able.then_some(python)
}

/// A daemon with files and, at `/echo` and `/slow`, an origin.
async fn daemon(origin: &Origin) -> Daemon {
    let routes = ["echo", "slow"]
        .map(|it| format!("[backends.\"localhost\".routes.\"/{it}\"]\nurl = \"{}\"\n", origin.url()))
        .concat();
    let builder = Daemon::builder(&format!("{CONFIG}{routes}"));
    let daemon = builder.file("www/small.txt", "small\n").file("www/index.html", "<p id=page>page</p>").start().await;
    let root = daemon.ctl_ok(&["cert", "trust", "--print"]).await.stdout;
    daemon.write("ca.pem", &root);
    daemon
}

fn client(python: &PathBuf, daemon: &Daemon, case: &str) -> Child {
    Command::new(python)
        .arg(repository().join("tests/integration/http3/client.py"))
        .args([case, &daemon.address(2).port().to_string()])
        .arg(daemon.dir().join("ca.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python starts")
}

async fn succeeds(child: Child, daemon: &Daemon) {
    let output = tokio::time::timeout(wait::LATER, child.wait_with_output()).await.expect("it ends").expect("it ran");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n--- daemon\n{}", daemon.log());
}

/// Runs one case of the client script against a fresh daemon.
async fn case(name: &str) {
    let Some(python) = python() else { skip!("the Python clients of HTTP/3 are not installed (tests/run install)") };
    let origin = Origin::start("origin").await;
    let daemon = daemon(&origin).await;
    succeeds(client(&python, &daemon, name), &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everyday_requests_are_answered() {
    case("everyday").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_requests_run_in_parallel() {
    case("parallel").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_go_both_ways() {
    case("bulk").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_as_over_tcp() {
    case("limits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_survives_a_change_of_address() {
    case("migration").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_validated_under_load() {
    case("retry").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn early_data_is_heard_where_it_is_allowed_for_what_changes_nothing_and_once() {
    let Some(python) = python() else { skip!("the Python clients of HTTP/3 are not installed (tests/run install)") };
    let origin = Origin::start("origin").await;
    let echo = format!("[backends.\"localhost\".routes.\"/echo\"]\nurl = \"{}\"\n", origin.url());
    let config = CONFIG.replace("issuer = \"local\"", "issuer = \"local\"\nearly_data = true");
    let daemon = Daemon::builder(&format!("{config}{echo}")).file("www/small.txt", "small\n").start().await;
    daemon.write("ca.pem", &daemon.ctl_ok(&["cert", "trust", "--print"]).await.stdout);
    let mut child = client(&python, &daemon, "early");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    until_ready(&mut lines).await;
    // Its handshake cannot come to an end before it hears of us.
    wait::until(wait::SOON, "both requests are answered", async || {
        let log = daemon.read("access.log");
        log.contains("GET /echo?early HTTP/3.0\" 200") && log.contains("POST /echo HTTP/3.0\" 425")
    })
    .await;
    child.stdin.take().expect("piped").write_all(b"go on\n").await.expect("it reads");
    succeeds(child, &daemon).await;
    let seen: Vec<_> =
        origin.seen().iter().map(|it| (it.method.to_string(), it.header("early-data").to_owned())).collect();
    let expected = [("GET", "1"), ("GET", "")].map(|it| (it.0.to_owned(), it.1.to_owned()));
    assert_eq!(seen, expected, "apps are told, and see nothing that changes something");
}

#[tokio::test(flavor = "multi_thread")]
async fn early_data_is_not_heard_unless_it_is_allowed() {
    case("not_early").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_frames_are_named_in_the_close() {
    case("broken").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn niquests_is_served() {
    case("niquests_client").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_served() {
    case("curl_client").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_through_a_reload() {
    let Some(python) = python() else { skip!("the Python clients of HTTP/3 are not installed (tests/run install)") };
    let origin = Origin::start("origin").await;
    let daemon = daemon(&origin).await;
    let mut child = client(&python, &daemon, "through_reload");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    until_ready(&mut lines).await;
    let more = "[backends.\"more.test\"]\nrespond = { status = 200, body = \"more\" }\n";
    daemon.rewrite_config(&format!("{CONFIG}{more}"));
    assert_eq!(daemon.reload().await.status, 0);
    child.stdin.take().expect("piped").write_all(b"go on\n").await.expect("it reads");
    succeeds(child, &daemon).await;
}

/// A request is with its origin when `end` comes, and is answered all the same.
async fn is_answered_through(end: impl AsyncFnOnce(&Daemon)) {
    let Some(python) = python() else { skip!("the Python clients of HTTP/3 are not installed (tests/run install)") };
    let origin = Origin::start("origin").await;
    origin.delay(std::time::Duration::from_secs(1));
    let daemon = daemon(&origin).await;
    let mut child = client(&python, &daemon, "through_stop");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    until_ready(&mut lines).await;
    wait::until(wait::SOON, "the request is with the origin", async || origin.requests() == 1).await;
    end(&daemon).await;
    succeeds(child, &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_before_a_stop_is_answered() {
    is_answered_through(async |daemon| daemon.signal(Signal::SIGTERM)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_before_http3_was_switched_off_is_answered() {
    is_answered_through(async |daemon| {
        daemon.rewrite_config(&CONFIG.replace("workers = 2", "workers = 2\nhttp3 = false"));
        assert_eq!(daemon.reload().await.status, 0);
    })
    .await;
}

/// Answers with a head and a beginning; resolves when the other side goes.
async fn begun() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("a bound address"));
    let gone = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("it is asked");
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let mut chunk = [0; 4096];
        assert!(stream.read(&mut chunk).await.is_ok_and(|it| it > 0), "a request");
        stream.write_all(answer.as_bytes()).await.expect("it is heard");
        while !matches!(stream.read(&mut chunk).await, Ok(0) | Err(_)) {}
    });
    (url, gone)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_stops_is_stopped_at_the_upstream_too() {
    let Some(python) = python() else { skip!("the Python clients of HTTP/3 are not installed (tests/run install)") };
    let origin = Origin::start("origin").await;
    origin.delay(std::time::Duration::from_secs(600));
    let (url, gone) = begun().await;
    let route = |path: &str, url: &str| format!("[backends.\"localhost\".routes.\"{path}\"]\nurl = \"{url}\"\n");
    let config = format!("{CONFIG}{}{}", route("/begun", &url), route("/slow", &origin.url()));
    let daemon = Daemon::builder(&config).file("www/small.txt", "small\n").start().await;
    daemon.write("ca.pem", &daemon.ctl_ok(&["cert", "trust", "--print"]).await.stdout);
    let mut child = client(&python, &daemon, "cancelled");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut input = child.stdin.take().expect("piped");
    until_ready(&mut lines).await;
    assert!(!gone.is_finished());
    input.write_all(b"stop it\n").await.expect("it reads");
    until_ready(&mut lines).await;
    tokio::time::timeout(wait::SOON, gone).await.expect("the upstream is let go").expect("no panic");
    input.write_all(b"go on\n").await.expect("it reads");
    until_ready(&mut lines).await;
    wait::until(wait::SOON, "the request is with the origin", async || origin.requests() == 1).await;
    input.write_all(b"stop it\n").await.expect("it reads");
    until_ready(&mut lines).await;
    wait::until(wait::SOON, "the client is known to have gone", async || {
        daemon.read("access.log").lines().any(|it| it.contains("GET /slow HTTP/3.0\" 499"))
    })
    .await;
    input.write_all(b"go on\n").await.expect("it reads");
    succeeds(child, &daemon).await;
}

async fn until_ready(lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>) {
    let ready = async {
        while let Some(line) = lines.next_line().await.expect("standard output reads") {
            if line == "ready" {
                return;
            }
        }
        panic!("the client ended before it was ready");
    };
    tokio::time::timeout(wait::LATER, ready).await.expect("the client is ready in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn http3_is_announced_where_it_is_served_and_only_there() {
    let origin = Origin::start("origin").await;
    let daemon = daemon(&origin).await;
    let announced = async |port: u16, scheme: &str| {
        let output = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-D", "-", "--cacert"])
            .arg(daemon.dir().join("ca.pem"))
            .args([
                "--resolve",
                &format!("localhost:{port}:127.0.0.1"),
                &format!("{scheme}://localhost:{port}/small.txt"),
            ])
            .output();
        let output = output.await.expect("curl runs");
        String::from_utf8_lossy(&output.stdout).to_ascii_lowercase()
    };
    let (http, https) = (daemon.http().port(), daemon.address(2).port());
    assert!(announced(https, "https").await.contains(&format!("alt-svc: h3=\":{https}\"")));
    assert!(!announced(http, "http").await.contains("alt-svc"));
    let off = CONFIG.replace("workers = 2", "workers = 2\nhttp3 = false");
    daemon.rewrite_config(&off);
    assert_eq!(daemon.reload().await.status, 0);
    assert!(!announced(https, "https").await.contains("alt-svc"));
    let listeners = daemon.ctl_json(&["status"]).await["listeners"].to_string();
    assert!(!listeners.contains("h3"), "{listeners}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_names_the_protocol() {
    let Some(python) = python() else { skip!("the Python clients of HTTP/3 are not installed (tests/run install)") };
    let origin = Origin::start("origin").await;
    let daemon = daemon(&origin).await;
    succeeds(client(&python, &daemon, "everyday"), &daemon).await;
    wait::until(wait::SOON, "the lines are written", async || {
        daemon.read("access.log").contains("\"GET /small.txt HTTP/3.0\" 200 6")
    })
    .await;
}
