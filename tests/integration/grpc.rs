//! gRPC through the proxy, with the client and the server that most people use.

use std::{path::PathBuf, process::Stdio, time::Duration};

use harness::{Daemon, repository, skip, wait};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

const CHECKS: usize = 18;
const MINUTES: Duration = Duration::from_secs(240);

/// The interpreter with grpcio, if the tests' tools were installed.
fn python() -> Option<PathBuf> {
    let environment = repository().join("tests/.venv");
    let installed = std::fs::read_dir(environment.join("lib")).ok()?.flatten();
    let found = installed.into_iter().any(|it| it.path().join("site-packages/grpc").is_dir());
    found.then(|| environment.join("bin/python"))
}

/// A running `calls.py`, with its lines in and out.
struct Script {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(python: &PathBuf, args: &[&str]) -> Self {
        let mut command = Command::new(python);
        command.arg(repository().join("tests/grpc/calls.py")).args(args).kill_on_drop(true);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("python runs");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { _child: child, input, output }
    }

    async fn line(&mut self) -> Option<String> {
        timeout(MINUTES, self.output.next_line()).await.expect("it says something in time").expect("its output is text")
    }

    async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }
}

fn config(port: &str) -> String {
    // Shorter than the silences of the checks: an ordinary request would be ended, a call is not.
    format!(
        "[server]\nrequest_timeout = \"2s\"\nhttps_port = {{port2}}\nenable_https = true\n\
         [backends.\"a.test\"]\nurl = \"http://127.0.0.1:{port}\"\nupstream_http = \"2\"\npreserve_host = true\n\
         [backends.\"down.test\"]\nurl = \"http://127.0.0.1:{{port3}}\"\nupstream_http = \"2\"\n\
         [backends.\"files.test\"]\nroot = \"{{dir}}\"\n"
    )
}

async fn every_check(secure: bool) {
    let Some(python) = python() else { skip!("grpcio is not installed; tests/run install does it") };
    let mut server = Script::start(&python, &["serve"]);
    let daemon = Daemon::start(&config(&server.line().await.expect("a port"))).await;
    let target = daemon.address(if secure { 2 } else { 1 }).to_string();
    let mut args = vec!["check".to_owned(), target];
    if secure {
        daemon.write("ca.pem", &daemon.ctl_ok(&["cert", "trust", "--print"]).await.stdout);
        args.push(daemon.dir().join("ca.pem").display().to_string());
    }
    let mut client = Script::start(&python, &args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut said = Vec::new();
    while let Some(line) = client.line().await {
        said.push(line);
    }
    let good = said.iter().filter(|it| it.starts_with("ok ")).count();
    assert_eq!((good, said.len()), (CHECKS, CHECKS), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_call_passes_over_cleartext() {
    every_check(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_call_passes_over_tls() {
    every_check(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_miwid_has_to_say_is_a_status_of_grpc() {
    let Some(python) = python() else { skip!("grpcio is not installed; tests/run install does it") };
    let daemon = Daemon::start(&config("1")).await;
    let target = daemon.address(1).to_string();
    for (host, expected) in [
        ("down.test", "UNAVAILABLE connect-refused"),
        ("nobody.test", "UNIMPLEMENTED no-site"),
        ("files.test", "UNIMPLEMENTED method"),
    ] {
        let mut client = Script::start(&python, &["down", &target, host]);
        assert_eq!(client.line().await.as_deref(), Some(expected), "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_lives_through_the_reload_of_another_site() {
    let Some(python) = python() else { skip!("grpcio is not installed; tests/run install does it") };
    let mut server = Script::start(&python, &["serve"]);
    let port = server.line().await.expect("a port");
    let daemon = Daemon::start(&config(&port)).await;
    let mut client = Script::start(&python, &["hold", &daemon.address(1).to_string()]);
    client.say("before").await;
    assert_eq!(client.line().await.as_deref(), Some("before"));
    let other = "[backends.\"new.test\"]\nrespond = \"new\"\n";
    daemon.rewrite_config(&format!("{}{other}", config(&port)));
    assert_eq!(daemon.reload().await.status, 0);
    let answers = || async { daemon.get_host("new.test", "/").await.text() == "new" };
    wait::until(wait::SOON, "the other site answers", answers).await;
    client.say("after").await;
    assert_eq!(client.line().await.as_deref(), Some("after"));
}
