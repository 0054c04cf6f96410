//! gRPC through the proxy, with the client and the server that most people use.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use harness::{Daemon, exists, repository, skip, wait};
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
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(python: &PathBuf, args: &[&str]) -> Self {
        let mut command = Command::new(python);
        command.arg(repository().join("tests/grpc/calls.py")).args(args).kill_on_drop(true);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("python runs");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { _child: child, input, output }
    }

    async fn line(&mut self) -> Option<String> {
        timeout(MINUTES, self.output.next_line()).await.expect("it says something in time").expect("its output is text")
    }

    async fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input has not ended");
        input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }

    async fn answer(&mut self, line: &str) -> String {
        self.say(line).await;
        self.line().await.expect("an answer")
    }

    /// Ends its input, and gives what it says then.
    async fn end(&mut self) -> Vec<String> {
        self.input = None;
        let mut said = Vec::new();
        while let Some(line) = self.line().await {
            said.push(line);
        }
        said
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

/// A server of calls that miwid runs.
fn managed(python: &Path) -> String {
    let (python, script) = (python.display(), repository().join("tests/grpc/calls.py"));
    format!(
        "[backends.\"a.test\"]\nname = \"calls\"\napp_type = \"command\"\nupstream_http = \"2\"\n\
         [backends.\"a.test\".process]\ncommand = \"{python}\"\nargs = [\"{}\", \"app\"]\nlisten = \"tcp\"\n\
         settle_time = \"200ms\"\ndrain_timeout = \"2m\"\nstream_drain = \"wait\"\n",
        script.display()
    )
}

// 59 of the failure tests. Calls that have begun end at the instance that has their beginning, and no other call fails.
#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_where_they_began_when_their_app_is_restarted() {
    let Some(python) = python() else { skip!("grpcio is not installed; tests/run install does it") };
    let daemon = Daemon::start(&managed(&python)).await;
    daemon.app_ready("calls").await;
    let old = daemon.app_pids("calls").await[0];
    let target = daemon.address(1).to_string();
    let mut stream = Script::start(&python, &["hold", &target, "SignedEcho"]);
    assert_eq!(stream.answer("before").await, format!("{old} before"));
    let mut upload = Script::start(&python, &["upload", &target]);
    upload.say("first").await;
    let open = |app: &serde_json::Value| app["instances"][0]["in_flight"] == 2;
    daemon.app_where("calls", "the stream and the upload are under way", open).await;
    let mut load = Script::start(&python, &["load", &target]);
    assert_eq!(load.answer("more").await, old.to_string());

    let mut restart = daemon.ctl_child(&["app", "restart", "calls"]);
    let is_draining = |app: &serde_json::Value| {
        let instances = app["instances"].as_array();
        instances.is_some_and(|all| all.iter().any(|it| it["pid"] == old && it["state"] == "draining"))
    };
    daemon.app_where("calls", "the old one drains", is_draining).await;
    // Calls that were on their way to the old one may be among the first answers.
    for _ in 0..10 {
        load.answer("more").await;
    }
    let new = load.answer("more").await;
    assert!(!new.contains(&old.to_string()) && !new.is_empty(), "other calls go to the new one: {new}, not {old}");
    assert_eq!(stream.answer("meanwhile").await, format!("{old} meanwhile"), "the stream is where it was");
    upload.say("second").await;
    assert_eq!(upload.end().await, [format!("{old} first second")], "the upload ends where it began");
    assert!(exists(old), "the old one waits for the stream");
    assert_eq!(stream.answer("after").await, format!("{old} after"));
    assert_eq!(stream.end().await, ["ended"], "the stream ends as its client wishes");
    assert!(restart.wait().await.unwrap().success());
    assert!(!exists(old));
    assert_eq!(load.answer("more").await, new);
    let said = load.end().await.concat();
    assert!(said.contains("failed 0 "), "{said}");
}
