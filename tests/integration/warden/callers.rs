//! Who holds a connection to the control plane or to the admin listener across an upgrade, or follows something, is soon with the
//! engine that serves, however long the one before stays for its last tunnel.

use std::path::PathBuf;

use harness::{Daemon, wait};
use hyper_util::rt::TokioIo;
use proto::v1::{RestartRequest, StatusRequest, apps_client::AppsClient, daemon_client::DaemonClient};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpStream, UnixStream},
    process::ChildStdout,
};
use tonic::transport::{Channel, Endpoint, Uri};

use super::{engines, kill_engine, start};
use crate::lifecycle::managed;

async fn channel(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.expect("connects")
}

async fn upgraded_with_a_tunnel_open(daemon: &Daemon, engine: u64) {
    let said = daemon.ctl_ok(&["upgrade"]).await;
    assert!(said.stdout.contains(&format!("engine {engine} serves")), "{said:?}");
    assert_eq!(engines(daemon).len(), 2, "the one before is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_over_a_lasting_connection_reach_the_engine_that_serves() {
    let daemon = start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let tunnel = daemon.websocket("chaos.test", "/ws").await;
    let channel = channel(daemon.socket()).await;
    let (mut daemons, mut apps) = (DaemonClient::new(channel.clone()), AppsClient::new(channel));
    let generation = |it: tonic::Response<proto::v1::StatusReply>| it.into_inner().engine_generation;
    assert_eq!(daemons.status(StatusRequest {}).await.map(generation).ok(), Some(1));

    upgraded_with_a_tunnel_open(&daemon, 2).await;
    let reached = async || daemons.clone().status(StatusRequest {}).await.map(generation).ok();
    wait::for_value(wait::LATER, "the engine that serves is reached", reached, |it| *it == Some(2)).await;
    assert_eq!(engines(&daemon).len(), 2, "the tunnel holds the one before");
    let before = daemon.app_pids("chaos").await;
    let asked = apps.restart(RestartRequest { name: "chaos".to_owned(), ..RestartRequest::default() }).await;
    asked.expect("the engine that has the apps is asked");
    wait::until(wait::LATER, "it is restarted", async || {
        let now = daemon.app_pids("chaos").await;
        now.len() == 1 && now != before
    })
    .await;
    drop(tunnel);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_connection_to_the_admin_listener_is_ended() {
    let daemon = start(&format!("[admin]\nlisten = \"127.0.0.1:{{port2}}\"\n{}", managed(&[], ""))).await;
    daemon.app_ready("chaos").await;
    let tunnel = daemon.websocket("chaos.test", "/ws").await;
    let mut scraper = TcpStream::connect(daemon.address(2)).await.expect("connects");
    scraper.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    let mut answer = [0; 12];
    scraper.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");

    upgraded_with_a_tunnel_open(&daemon, 2).await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(wait::LATER, scraper.read_to_end(&mut rest)).await;
    ended.expect("it is ended").expect("in an orderly way");
    assert_eq!(engines(&daemon).len(), 2, "the tunnel holds the one before");
    drop(tunnel);
}

/// What a command prints while it runs.
struct Following {
    _child: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(daemon: &Daemon, args: &[&str]) -> Self {
        let mut child = daemon.ctl_child(args);
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { _child: child, lines }
    }

    /// Everything up to the first line with this in it, which must come.
    async fn until(&mut self, text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|it: &String| it.contains(text)) {
            let line = tokio::time::timeout(wait::LATER, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("{text} does not come: {seen:#?}"));
            seen.extend(line.expect("text"));
        }
        seen
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_events_are_followed_through_a_crash_and_an_upgrade() {
    let daemon = start(&managed(&[], "")).await;
    daemon.app_ready("chaos").await;
    let tunnel = daemon.websocket("chaos.test", "/ws").await;
    let mut output = Following::start(&daemon, &["app", "logs", "chaos", "--follow"]);
    let mut access = Following::start(&daemon, &["logs", "tail", "access", "--follow"]);
    let mut events = Following::start(&daemon, &["events", "--follow"]);
    let mut status = Following::start(&daemon, &["status", "--watch"]);
    let say = async |text: &str| {
        assert_eq!(daemon.get_host("chaos.test", &format!("/log?text={text}")).await.status, 200);
    };
    events.until("app.ready").await;
    status.until("running").await;
    say("first").await;
    let mut all = output.until("first").await;
    access.until("first").await;

    drop(tunnel);
    kill_engine(&daemon).await;
    say("second").await;
    all.extend(output.until("second").await);
    let mut asked = access.until("second").await;
    events.until("app.adopted").await;

    let tunnel = daemon.websocket("chaos.test", "/ws").await;
    upgraded_with_a_tunnel_open(&daemon, 3).await;
    say("third").await;
    all.extend(output.until("third").await);
    asked.extend(access.until("third").await);
    events.until("app.adopted").await;
    for text in ["first", "second", "third"] {
        assert_eq!(all.iter().filter(|it| it.contains(text)).count(), 1, "{text}: {all:#?}");
    }
    assert!(!asked.iter().any(|it| it.contains("first")), "what is in the file is not told again: {asked:#?}");
    drop(tunnel);
    daemon.ctl_ok(&["app", "stop", "chaos"]).await;
    status.until("stopped").await;
}
