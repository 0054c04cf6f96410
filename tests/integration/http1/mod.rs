//! HTTP/1.1 to the letter, as a client without a library sees it: what is refused, what is passed on, and that no two
//! parties ever disagree about where a request ends.

mod answers;
mod cases;
mod recorder;
mod slow;

use std::time::Duration;

use harness::{Daemon, RawOrigin};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use cases::{Case, Expected};
use recorder::Recorder;

const FILES: &str = "files.test";
const PROXY: &str = "proxy.test";
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(20);

async fn daemon(recorder: &Recorder, server: &str) -> Daemon {
    let config = format!(
        "[server]\nbind = [\"127.0.0.1\"]\nhttp_port = {{port}}\n{server}\n\
         [backends.\"{FILES}\"]\nroot = \"{{dir}}/files\"\n\
         [backends.\"{PROXY}\"]\nurl = \"http://{}\"\n",
        recorder.address
    );
    Daemon::builder(&config).file("files/a", "a!").file("files/after", "after!").start().await
}

/// Sends `bytes` and reads until the daemon closes the connection; `None`: it does not.
async fn exchange(daemon: &Daemon, bytes: &[u8]) -> Option<String> {
    let stream = TcpStream::connect(daemon.http()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    // It may be answered and closed before all is written.
    let write = async {
        let _ = writer.write_all(bytes).await;
    };
    let mut answer = Vec::new();
    let read = async {
        let mut chunk = [0; 16 * 1024];
        while let Ok(count @ 1..) = reader.read(&mut chunk).await {
            answer.extend_from_slice(&chunk[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(read, write) }).await.ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// The status lines of an answer, informational ones apart.
fn statuses(answer: &str) -> Vec<u16> {
    let heads = answer.match_indices("HTTP/1.1 ").chain(answer.match_indices("HTTP/1.0 "));
    heads.filter_map(|(at, _)| answer.get(at + 9..at + 12)?.parse().ok()).filter(|it| *it >= 200).collect()
}

fn filled(bytes: &[u8], host: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.replace('@', host).replace('\u{1}', "@").into_bytes()
}

/// Everything that is wrong with what became of `case`.
fn judge(case: &Case, host: &str, answer: &str, arrived: &[recorder::Arrived]) -> Result<(), String> {
    let statuses = statuses(answer);
    let (first, after) = (statuses.first().copied(), answer.ends_with("after!"));
    let ensure = |fine: bool, what: &str| if fine { Ok(()) } else { Err(what.to_owned()) };
    ensure(statuses.len() <= 2, "more answers than requests")?;
    ensure((statuses.len() == 2) == after, "the second answer is not that of the second request")?;
    match case.expected {
        Expected::Served => ensure(first == Some(200) && after, "200, and the connection goes on")?,
        Expected::Last => ensure(first == Some(200) && statuses.len() == 1, "200, and the connection ends")?,
        Expected::Answered(status) => ensure(first == Some(status) && after, "a status, and the connection goes on")?,
        Expected::Upstream if host == PROXY => ensure(first == Some(200) && after, "200 from the upstream")?,
        Expected::Upstream => ensure(matches!(first, Some(405 | 501)), "files refuse the method")?,
        Expected::Refused(status) => {
            ensure(statuses == [status], "refused, and the connection ends")?;
            for header in ["server: miwid", "miwi-reason: ", "connection: close", "date: "] {
                ensure(answer.contains(header), header)?;
            }
        }
        Expected::Broken => {
            ensure(statuses.len() == 1 && first >= Some(400), "an error, and the connection ends")?;
            ensure(host != PROXY || first == Some(400), "400")?;
        }
    }
    let whole: Vec<&str> = arrived.iter().filter(|it| it.body.is_some()).map(|it| it.line.as_str()).collect();
    if host == FILES {
        // A request of the case before that broke off may be noticed only now.
        let meant = arrived.iter().any(|it| it.headers.get("x-forwarded-host").is_none_or(|it| it != PROXY));
        return ensure(!meant, "the upstream has nothing to do with it");
    }
    match case.expected {
        Expected::Served | Expected::Upstream => {
            ensure(whole.len() == 2 && whole[1] == "GET /after", "the upstream got both requests")?;
        }
        Expected::Last => ensure(whole.len() == 1, "the upstream got the request")?,
        Expected::Answered(_) => ensure(whole == ["GET /after"], "the upstream got the second request")?,
        Expected::Refused(_) => ensure(arrived.is_empty(), "the upstream got nothing")?,
        Expected::Broken => ensure(whole.is_empty(), "the upstream got nothing whole")?,
    }
    let smuggled = arrived.iter().any(|it| it.headers.contains_key("content_length") || it.line.contains("smuggled"));
    ensure(!smuggled, "something was smuggled")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_raw_request_gets_its_verdict_and_no_connection_falls_out_of_step() {
    let recorder = Recorder::start().await;
    let daemon = daemon(&recorder, "").await;
    let cases = cases::all();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        for host in [FILES, PROXY] {
            let after = format!("GET /after HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let bytes = [filled(&case.bytes, host), after.into_bytes()].concat();
            let answer = exchange(&daemon, &bytes).await;
            let arrived = recorder.take();
            let verdict = match &answer {
                None => Err("the connection is left open".to_owned()),
                Some(answer) => judge(case, host, answer, &arrived),
            };
            if let Err(what) = verdict {
                let lines: Vec<_> = arrived.iter().map(|it| (&it.line, it.body.is_some())).collect();
                let answer = answer.unwrap_or_default();
                failures
                    .push(format!("{host}: {} ({:?}): {what}\n  {answer:?}\n  {lines:?}", case.name, case.expected));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len() * 2, failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_waits_for_its_turn_and_is_recorded() {
    let recorder = Recorder::start().await;
    let daemon = daemon(&recorder, "").await;
    let requests = format!(
        "GET /a HTTP/1.1\r\nhost: {PROXY}\r\n\r\nGET /after HTTP/1.1\r\nhost: {FILES}\r\n\r\n\
         DELETE /bad HTTP/1.1\r\nhost: {PROXY}\r\nx : y\r\n\r\nGET /a HTTP/1.1\r\nhost: {PROXY}\r\n\r\n"
    );
    let answer = exchange(&daemon, requests.as_bytes()).await.expect("it ends");
    assert_eq!(statuses(&answer), [200, 200, 400], "{answer}");
    assert!(answer.find("a!") < answer.find("after!"), "{answer}");
    assert!(answer.contains("A header name is not a token."), "{answer}");
    let recorded = harness::wait::for_value(
        harness::wait::SOON,
        "the record of the refusal",
        || async { daemon.read("access.log") },
        |it| it.lines().count() == 3,
    )
    .await;
    let record: serde_json::Value = serde_json::from_str(recorded.lines().last().unwrap()).unwrap();
    let text = record.to_string();
    assert!(text.contains("DELETE") && text.contains("/bad") && text.contains("bad-request"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_head_has_no_body_even_when_it_is_refused() {
    let recorder = Recorder::start().await;
    let daemon = daemon(&recorder, "").await;
    let answer = exchange(&daemon, b"HEAD /a HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n").await.expect("it ends");
    assert_eq!(statuses(&answer), [400], "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn underscored_names_are_dropped_refused_or_kept() {
    let recorder = Recorder::start().await;
    for (policy, status, arrives) in [("drop", 200, false), ("reject", 400, false), ("keep", 200, true)] {
        let limits = format!("[server.limits]\nunderscore_headers = \"{policy}\"\n");
        let daemon = daemon(&recorder, &limits).await;
        let request = format!("GET /a HTTP/1.1\r\nhost: {PROXY}\r\nx_y: 1\r\nconnection: close\r\n\r\n");
        let answer = exchange(&daemon, request.as_bytes()).await.expect("it ends");
        assert_eq!(statuses(&answer), [status], "{policy}: {answer}");
        let arrived = recorder.take();
        assert_eq!(arrived.iter().any(|it| it.headers.contains_key("x_y")), arrives, "{policy}: {arrived:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_told_to_go_on_only_when_its_body_is_wanted() {
    let recorder = Recorder::start().await;
    let daemon = daemon(&recorder, "").await;
    let head = |host: &str, length: u64| {
        format!("PUT /a HTTP/1.1\r\nhost: {host}\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n")
    };
    let refused = exchange(&daemon, head(PROXY, 99_999_999).as_bytes()).await.expect("it ends");
    assert_eq!((statuses(&refused), refused.contains("100 Continue")), (vec![413], false), "{refused}");
    let refused = exchange(&daemon, head(FILES, 5).as_bytes()).await.expect("it ends");
    assert_eq!((statuses(&refused), refused.contains("100 Continue")), (vec![405], false), "{refused}");

    let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
    stream.write_all(head(PROXY, 5).as_bytes()).await.unwrap();
    let mut word = [0; 25];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut word)).await.expect("a word").unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"helloGET /after HTTP/1.1\r\nhost: files.test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut rest)).await.expect("an end").unwrap();
    assert_eq!(statuses(&rest), [200, 200], "{rest}");
    assert_eq!(recorder.take()[0].body.as_deref(), Some(&b"hello"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_reach_the_upstream() {
    let recorder = Recorder::start().await;
    let daemon = daemon(&recorder, "").await;
    let request = format!(
        "POST /a HTTP/1.1\r\nhost: {PROXY}\r\ntrailer: x-sum\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"
    );
    let answer = exchange(&daemon, request.as_bytes()).await.expect("it ends");
    assert_eq!(statuses(&answer), [200], "{answer}");
    let arrived = recorder.take();
    let trailers = arrived[0].trailers.as_ref().expect("the trailers arrive");
    assert_eq!(trailers["x-sum"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_reach_clients_that_can_take_them() {
    let early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\ncontent-length: 9\r\n\r\n\
                  HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na!";
    let origin = RawOrigin::start(early).await;
    let daemon = Daemon::start(&format!("[backends.\"{PROXY}\"]\nurl = \"{}\"\n", origin.url())).await;
    let request = |version| format!("GET /a HTTP/{version}\r\nhost: {PROXY}\r\nconnection: close\r\n\r\n");
    let answer = exchange(&daemon, request("1.1").as_bytes()).await.expect("it ends");
    assert!(answer.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\na!"), "{answer}");
    let answer = exchange(&daemon, request("1.0").as_bytes()).await.expect("it ends");
    assert_eq!((statuses(&answer), answer.contains("103")), (vec![200], false), "{answer}");
}
