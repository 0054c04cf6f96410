//! Access logs: formats, escaping, rotation, and the reports made from them.

use std::fs;

use bytes::Bytes;
use harness::{Daemon, Origin, wait};
use http::{Request, header};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream};

fn site(format: &str, more: &str) -> String {
    format!(
        "[backends.\"a.test\"]\nroot = \"{{dir}}/www\"\n[logging.access_log]\nenabled = true\n\
         path = \"{{dir}}/log/access.log\"\nformat = \"{format}\"\nbuffer_size = 1\n{more}\n"
    )
}

async fn serving(format: &str, more: &str) -> Daemon {
    Daemon::builder(&site(format, more)).file("www/index.html", "hello\n").start().await
}

async fn logged(daemon: &Daemon, marker: &str) -> String {
    wait::for_some(wait::SOON, &format!("{marker} is in the access log"), async || {
        daemon.read("log/access.log").lines().find(|it| it.contains(marker)).map(str::to_owned)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn common_and_combined_read_as_every_tool_expects() {
    for format in ["common", "combined"] {
        let daemon = serving(format, "").await;
        let ask = Request::get("/?a=1").header(header::HOST, "a.test").header(header::USER_AGENT, "tester/1 \"x\"");
        daemon.request(ask.body(Bytes::new()).unwrap()).await;
        let line = logged(&daemon, "a=1").await;
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(line.contains("\"GET /?a=1 HTTP/1.1\" 200 6"), "{line}");
        assert_eq!(line.contains("tester/1"), format == "combined", "{line}");
        assert!(!line.contains("1 \"x\""), "a quote in a field is escaped: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_have_the_promised_fields_and_survive_junk() {
    let daemon = serving("json", "").await;
    daemon.raw(b"GET /m\"\\x HTTP/1.1\r\nHost: a.test\r\nUser-Agent: \xff\xfe\x1b\r\nConnection: close\r\n\r\n").await;
    daemon.get_host("a.test", "/plain").await;
    let line: Value = serde_json::from_str(&logged(&daemon, "/plain").await).unwrap();
    for field in ["timestamp", "remote_addr", "method", "path", "request_id"] {
        assert!(line[field].is_string(), "{field}: {line}");
    }
    for field in ["status", "response_time_ms", "bytes_sent"] {
        assert!(line[field].is_number(), "{field}: {line}");
    }
    for line in daemon.read("log/access.log").lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "not JSON: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn size_rotates_compresses_and_keeps_so_many() {
    let rotation = "[logging.rotation]\nenabled = true\nmax_size_mb = 1\nmax_backups = 3\ncompress = true";
    let daemon = serving("combined", rotation).await;
    // Four kilobytes a line: fifteen hundred of them fill the file six times.
    let long = format!("/?{}", "q".repeat(4000));
    daemon.load("a.test").paths(&[&long]).requests(1500).run().await.assert_none_failed();
    let backups = || {
        let names = fs::read_dir(daemon.dir().join("log")).unwrap().map(|it| it.unwrap().file_name());
        names.map(|it| it.to_string_lossy().into_owned()).filter(|it| it != "access.log").collect::<Vec<_>>()
    };
    wait::for_value(
        wait::SOON,
        "three compressed backups are kept",
        || std::future::ready(backups()),
        |names| names.len() == 3 && names.iter().all(|it| it.ends_with(".gz")),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_on_command_names_its_files_and_loses_nothing() {
    let daemon = serving("json", "").await;
    daemon.get_host("a.test", "/before").await;
    logged(&daemon, "/before").await;
    let output = daemon.ctl_ok(&["logs", "rotate"]).await;
    assert!(output.stdout.contains("access.log"), "{output:?}");
    daemon.get_host("a.test", "/after").await;
    logged(&daemon, "/after").await;
    assert!(!daemon.read("log/access.log").contains("/before"));
    assert!(fs::read_dir(daemon.dir().join("log")).unwrap().count() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn usr1_opens_a_moved_file_anew() {
    let daemon = serving("json", "").await;
    daemon.get_host("a.test", "/before").await;
    logged(&daemon, "/before").await;
    let log = daemon.dir().join("log");
    fs::rename(log.join("access.log"), log.join("moved")).unwrap();
    daemon.signal(Signal::SIGUSR1);
    wait::until(wait::SOON, "the file is there again", async || log.join("access.log").exists()).await;
    daemon.get_host("a.test", "/after").await;
    logged(&daemon, "/after").await;
    assert!(fs::read_to_string(log.join("moved")).unwrap().contains("/before"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_delays_no_request() {
    let config = site("json", "").replace("{dir}/log/access.log", "/dev/full");
    let daemon = Daemon::builder(&config).file("www/index.html", "hello\n").start().await;
    daemon.load("a.test").requests(1000).run().await.assert_none_failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_read_all_three_formats_without_a_daemon() {
    for format in ["common", "combined", "json"] {
        let daemon = serving(format, "").await;
        daemon.load("a.test").paths(&["/"]).connections(2).requests(20).run().await.assert_none_failed();
        daemon.get_host("a.test", "/missing").await;
        logged(&daemon, "/missing").await;
        let file = daemon.dir().join("log/access.log");
        let output = daemon.ctl_ok(&["logs", "report", file.to_str().unwrap(), "-o", "json"]).await;
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(report["schema"], "miwi/v1");
        let text = report.to_string();
        assert!(text.contains("21") && text.contains("404") && text.contains("/missing"), "{format}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_are_listed_and_their_end_is_shown() {
    let daemon = serving("combined", "").await;
    daemon.get_host("a.test", "/marker").await;
    logged(&daemon, "/marker").await;
    let list = daemon.ctl_json(&["logs", "list"]).await;
    assert!(list["logs"].as_array().is_some_and(|it| !it.is_empty()), "{list}");
    let tail = daemon.ctl_ok(&["logs", "tail", "-n", "5"]).await;
    assert!(tail.stdout.contains("/marker"), "{tail:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_answer_is_logged_as_gone() {
    let origin = Origin::start("slow").await;
    origin.delay(wait::LATER);
    let slow = format!("[backends.\"slow.test\"]\nurl = \"{}\"\n", origin.url());
    let daemon = serving("json", &slow).await;
    let mut client = TcpStream::connect(daemon.http()).await.unwrap();
    client.write_all(b"GET /patience HTTP/1.1\r\nhost: slow.test\r\n\r\n").await.unwrap();
    wait::until(wait::SOON, "the origin has the request", async || origin.requests() == 1).await;
    drop(client);
    let line: Value = serde_json::from_str(&logged(&daemon, "/patience").await).unwrap();
    assert_eq!((&line["status"], &line["aborted"]), (&Value::from(499), &Value::from(true)), "{line}");
    assert_eq!(line["site"], "slow.test");
}
