//! permessage-deflate (RFC 7692) is a matter of the two ends: the offer and the answer pass, and so do messages that say by
//! a reserved bit that they are compressed. The ends are the libraries that most people use.

use std::{path::PathBuf, process::Stdio};

use harness::{Daemon, repository, skip, wait};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// The interpreter with the client, if the tests' tools were installed.
fn python() -> Option<PathBuf> {
    let environment = repository().join("tests/.venv");
    let installed = std::fs::read_dir(environment.join("lib")).ok()?.flatten();
    let found = installed.into_iter().any(|it| it.path().join("site-packages/websockets").is_dir());
    found.then(|| environment.join("bin/python"))
}

/// The origin, which waits so many milliseconds for a Close that it is owed, and its port.
pub async fn echo(patience: &str) -> Option<(Child, u16)> {
    let folder = repository().join("tests/websocket");
    if !folder.join("node_modules/ws").is_dir() {
        return None;
    }
    let mut command = Command::new("node");
    command
        .args(["echo.js", "0", patience])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let port = timeout(wait::SOON, lines.next_line()).await.expect("it starts in time").expect("text");
    Some((child, port.expect("it says its port").parse().expect("a port")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_agree_on_compression_and_what_they_compress_arrives() {
    let Some(python) = python() else { skip!("the WebSocket client is not installed (tests/run install)") };
    let Some((_origin, port)) = echo("30000").await else {
        skip!("the WebSocket origin is not installed (tests/run install)")
    };
    let daemon = Daemon::start(&format!("[backends.\"localhost\"]\nurl = \"http://127.0.0.1:{port}\"\n")).await;
    let mut client = Command::new(python);
    client
        .arg(repository().join("tests/websocket/compressed.py"))
        .arg(format!("ws://localhost:{}/", daemon.http().port()));
    let output = timeout(wait::LATER, client.kill_on_drop(true).output()).await.expect("it ends").expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let agreements: Vec<(u64, &str)> = said
        .lines()
        .filter_map(|it| it.split_once(' '))
        .map(|(sent, agreed)| (sent.parse().unwrap(), agreed))
        .collect();
    assert_eq!(agreements.len(), 3, "{said}");
    assert!(agreements.iter().all(|(_, agreed)| agreed.starts_with("permessage-deflate")), "{said}");
    assert!(agreements[1].1.contains("server_no_context_takeover"), "{said}");
    assert!(agreements[2].1.contains("server_max_window_bits=10"), "{said}");
    // What went through was compressed, both ways.
    let records = || daemon.read("access.log").lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>();
    let what = "every tunnel has its record";
    let records: Vec<serde_json::Value> =
        wait::for_some(wait::SOON, what, async || records().ok().filter(|it| it.len() == 3)).await;
    for ((sent, _), record) in agreements.iter().zip(&records) {
        for direction in ["bytes_sent", "bytes_received"] {
            let passed = record[direction].as_u64().unwrap();
            assert!((100_000..sent / 2).contains(&passed), "{passed} of {sent}: {record}");
        }
    }
}
