//! Plain requests go to the service without the parser. Every case here is asked both ways, and the answers are the same but
//! for what is of the moment. An empty line before a request is allowed (RFC 9112, 2.2), and makes it one for the parser.

mod content;
mod handed_on;
mod trouble;

use std::{fs, io};

use harness::{Daemon, RawOrigin, raw_exchange, wait};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What an upstream may answer, and how that is framed.
const ANSWERS: [(&str, &[u8]); 14] = [
    ("length", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\netag: \"x\"\r\n\r\nhello"),
    ("empty", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ("chunked", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"),
    (
        "trailers",
        b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n",
    ),
    ("old", b"HTTP/1.0 200 OK\r\n\r\nuntil the end"),
    ("close", b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"),
    ("no-content", b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n"),
    ("not-modified", b"HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n"),
    ("dated", b"HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 1\r\n\r\nx"),
    ("odd", b"HTTP/1.1 299 Whatever\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 1\r\n\r\nx"),
    (
        "early",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
    ),
    ("not-http", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ("switching", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
    (
        "events",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\n\ndata: 2\n\n",
    ),
];

const CONFIG: &str = r#"
[server]
bind = ["127.0.0.1"]
http_port = {port}
workers = 1

[security.headers]
x_frame_options = "DENY"

[compression]
min_size = 100

[backends."files.test"]
root = "{dir}/www"

[backends."files.test".routes."/moved"]
redirect = "/elsewhere"

[backends."files.test".routes."/said"]
respond = { status = 203, body = "said" }

[backends."files.test".files]
listing = true

[backends."gone.test"]
url = "http://127.0.0.1:1"

[logging.access_log]
enabled = true
path = "{dir}/log/access.log"
format = "json"
buffer_size = 1
"#;

/// One connection.
struct Wire(TcpStream);

/// Head lines without what is of the moment, sorted behind the first; and the body.
type Answer = (Vec<String>, Vec<u8>);

impl Wire {
    async fn to(daemon: &Daemon) -> Self {
        Self(TcpStream::connect(daemon.http()).await.expect("it listens"))
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let byte = tokio::time::timeout(wait::SOON, self.0.read_u8()).await.expect("an answer comes");
            line.push(byte.unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&line))));
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).expect("heads are text")
    }

    async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        tokio::time::timeout(wait::SOON, self.0.read_exact(&mut bytes)).await.expect("it comes").expect("all of it");
        bytes
    }

    async fn answer(&mut self) -> Answer {
        let mut head = vec![self.line().await];
        loop {
            let line = self.line().await;
            if line.is_empty() {
                break;
            }
            head.push(line);
        }
        let said = |name: &str| head.iter().find_map(|it| it.strip_prefix(name)?.strip_prefix(": "));
        let mut body = Vec::new();
        if let Some(length) = said("content-length").filter(|_| !head[0].contains(" 304 ")) {
            body = self.bytes(length.parse().expect("a number")).await;
        } else if said("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line().await, 16).expect("a chunk");
                body.extend(self.bytes(size).await);
                assert_eq!(self.line().await, "");
                if size == 0 {
                    break;
                }
            }
        }
        // Where an encoder flushes depends on when its input comes, so what was encoded as it came is compared decoded.
        let is_stream = said("transfer-encoding").is_some();
        if is_stream && said("content-encoding") == Some("gzip") {
            let mut decoded = Vec::new();
            io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut decoded).expect("whole");
            body = decoded;
        }
        // The parser has a word of its own for a status without one.
        head[0] = head[0].replace("<none>", "");
        let of_the_moment = |it: &String| it.starts_with("x-request-id: ") || is_today(it);
        head.retain(|it| !of_the_moment(it));
        head[1..].sort();
        (head, body)
    }

    /// The answers up to the final one.
    async fn ask(&mut self, before: &str, host: &str, target: &str, fields: &str) -> Vec<Answer> {
        let request = format!("{before}GET {target} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n");
        self.0.write_all(request.as_bytes()).await.expect("it is open");
        let mut answers = Vec::new();
        loop {
            answers.push(self.answer().await);
            if !answers.last().is_some_and(|it| it.0[0].starts_with("HTTP/1.1 1")) {
                return answers;
            }
        }
    }
}

fn is_today(line: &str) -> bool {
    line.strip_prefix("date: ").is_some_and(|it| !it.contains("1994"))
}

async fn serving(origins: &[(&str, RawOrigin)]) -> Daemon {
    let sites: String = origins
        .iter()
        .map(|(name, origin)| format!("[backends.\"{name}.test\"]\nurl = \"{}\"\nretries = 0\n", origin.url()))
        .collect();
    let daemon = Daemon::builder(&format!("{CONFIG}{sites}")).file("www/a.txt", &"text ".repeat(1000)).start().await;
    fs::write(daemon.dir().join("www/large.bin"), vec![7; 300_000]).expect("there is space");
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_what_else_the_server_says_are_the_same_both_ways() {
    let daemon = serving(&[]).await;
    let etag = {
        let answers = Wire::to(&daemon).await.ask("", "files.test", "/a.txt", "").await;
        answers[0].0.iter().find_map(|it| it.strip_prefix("etag: ")).expect("it has one").to_owned()
    };
    let long = format!("/{}", "x".repeat(9000));
    let targets =
        ["/a.txt", "/large.bin", "/", "/missing", "/moved?x", "/said", "/%2e%2e/x", "/a%00b", "/a.txt?\"", &long];
    let wishes = [
        String::new(),
        "accept-encoding: gzip\r\n".into(),
        "accept: application/json\r\n".into(),
        "range: bytes=1-3\r\n".into(),
        "range: bytes=1-3,5-9\r\n".into(),
        "range: bytes=900000-\r\n".into(),
        format!("if-none-match: {etag}\r\n"),
        format!("if-match: {etag}\r\n"),
        "if-match: \"other\"\r\n".into(),
        "if-modified-since: Sun, 06 Nov 2033 08:49:37 GMT\r\n".into(),
        "if-unmodified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".into(),
        "connection: keep-alive\r\n".into(),
        "connection: close\r\n".into(),
        "x_y: z\r\n".into(),
    ];
    for target in targets {
        for wish in &wishes {
            // One connection for each way, so that the parser's is not given back in between.
            let direct = Wire::to(&daemon).await.ask("", "files.test", target, wish).await;
            let parsed = Wire::to(&daemon).await.ask("\r\n", "files.test", target, wish).await;
            let boundary = |answer: &Vec<Answer>| answer[0].0.iter().any(|it| it.contains("multipart/byteranges"));
            if boundary(&direct) && boundary(&parsed) {
                // The boundary between the parts is drawn by lot.
                assert_eq!(
                    (direct[0].1.len(), &direct[0].0[0]),
                    (parsed[0].1.len(), &parsed[0].0[0]),
                    "{target:.30} {wish}"
                );
            } else if direct != parsed && wish.contains("gzip") {
                // A better encoding of the file has been made meanwhile.
                let again = Wire::to(&daemon).await.ask("", "files.test", target, wish).await;
                assert_eq!(again, parsed, "{target:.30} {wish}");
            } else {
                assert_eq!(direct, parsed, "{target:.30} {wish}");
            }
        }
    }
    for host in ["gone.test", "nobody.test", "127.0.0.1"] {
        let direct = Wire::to(&daemon).await.ask("", host, "/", "").await;
        assert_eq!(direct, Wire::to(&daemon).await.ask("\r\n", host, "/", "").await, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_wants_nothing_more_is_told_so_and_let_go_both_ways() {
    let origins = [
        ("length", RawOrigin::lasting(ANSWERS[0].1).await),
        ("chunked", RawOrigin::lasting(ANSWERS[2].1).await),
        ("old", RawOrigin::start(ANSWERS[4].1).await),
    ];
    let daemon = serving(&origins).await;
    let targets = [
        ("files.test", "/a.txt"),
        ("files.test", "/large.bin"),
        ("files.test", "/said"),
        ("files.test", "/missing"),
        ("length.test", "/"),
        ("chunked.test", "/"),
        ("old.test", "/"),
        ("nobody.test", "/"),
    ];
    for (host, target) in targets {
        let mut last = None;
        // Once by way of the parser, then first seen, then from the shelf or over a connection that is open.
        for before in ["\r\n", "", "", ""] {
            let mut wire = Wire::to(&daemon).await;
            // What is asked behind it is not heard any more.
            let behind = "GET /said HTTP/1.1\r\nhost: files.test\r\n\r\n";
            let head = format!("{before}GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n{behind}");
            wire.0.write_all(head.as_bytes()).await.expect("it is open");
            let answer = wire.answer().await;
            assert!(answer.0.iter().any(|it| it == "connection: close"), "{host}{target}: {:?}", answer.0);
            let end = tokio::time::timeout(wait::SOON, wire.0.read(&mut [0; 16])).await.expect("it is closed");
            assert_eq!(end.unwrap_or(0), 0, "{host}{target}");
            assert!(last.is_none_or(|it| it == answer), "{host}{target}: {:?}", answer.0);
            last = Some(answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_upstream_answers_is_the_same_both_ways() {
    let mut origins = Vec::new();
    for (name, bytes) in ANSWERS {
        origins.push((name, RawOrigin::start(bytes).await));
    }
    let daemon = serving(&origins).await;
    for (name, _) in ANSWERS {
        let host = format!("{name}.test");
        for wish in ["", "accept-encoding: gzip\r\n", "user-agent: a\r\ncookie: a=1\r\ncookie: b=2\r\n"] {
            let mut wire = Wire::to(&daemon).await;
            let direct = wire.ask("", &host, "/x?y=1", wish).await;
            let parsed = Wire::to(&daemon).await.ask("\r\n", &host, "/x?y=1", wish).await;
            assert_eq!(direct, parsed, "{name} {wish}");
            // The connection is in step, and takes the next one.
            assert_eq!(wire.ask("", "files.test", "/said", "").await[0].1, b"said", "{name}");
        }
    }
    for (name, origin) in &origins {
        let mut heads: Vec<Vec<String>> = origin.heads().iter().map(|it| lasting(it)).collect();
        heads.dedup();
        // Three wishes, one of them with more fields; asked both ways.
        assert!((3..=6).contains(&heads.len()), "{name}: {heads:#?}");
        assert!(heads.iter().all(|it| it[0] == "GET /x?y=1 HTTP/1.1"), "{name}: {heads:#?}");
    }
}

/// A request head without what is of the moment.
fn lasting(head: &str) -> Vec<String> {
    let own = ["x-request-id", "x-request-start"];
    let mut lines: Vec<String> =
        head.lines().map(str::to_owned).filter(|it| !own.iter().any(|own| it.starts_with(own))).collect();
    lines[1..].sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reaches_the_upstream_is_the_same_both_ways() {
    let origins = [("length", RawOrigin::start(ANSWERS[0].1).await)];
    let daemon = serving(&origins).await;
    let fields = "accept: */*\r\nuser-agent: u\r\nx-forwarded-for: 1.1.1.1\r\ncookie: a=1\r\ncookie: b=2\r\nx-own:  spaced \r\n\
                  keep-alive: 5\r\nproxy-authorization: x\r\nvia: 1.1 edge\r\n";
    for before in ["", "\r\n"] {
        Wire::to(&daemon).await.ask(before, "length.test", "/a%20b/../c?d=%26", fields).await;
    }
    let heads: Vec<Vec<String>> = origins[0].1.heads().iter().map(|it| lasting(it)).collect();
    assert_eq!(heads.len(), 2);
    assert_eq!(heads[0], heads[1]);
    assert!(
        heads[0].contains(&"x-own: spaced".to_owned()) && heads[0].contains(&"cookie: a=1; b=2".to_owned()),
        "{heads:#?}"
    );
}

/// A record without what is of the moment.
fn timeless(record: &Value) -> serde_json::Map<String, Value> {
    let mut record = record.as_object().expect("a record is an object").clone();
    for own in ["timestamp", "response_time_ms", "request_id", "upstream_time_ms"] {
        record.remove(own);
    }
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_both_ways_say_the_same() {
    let origins = [("length", RawOrigin::start(ANSWERS[0].1).await)];
    let daemon = serving(&origins).await;
    let fields = "user-agent: tester\r\nreferer: http://b.test/\r\n";
    for before in ["", "\r\n"] {
        Wire::to(&daemon).await.ask(before, "length.test", "/x?y", fields).await;
    }
    let records = wait::for_some(wait::SOON, "two records", async || {
        let log = daemon.read("log/access.log");
        let records: Vec<Value> = log.lines().filter_map(|it| serde_json::from_str(it).ok()).collect();
        (records.len() >= 2).then_some(records)
    })
    .await;
    assert_eq!(timeless(&records[0]), timeless(&records[1]));
    assert_eq!((&records[0]["status"], &records[0]["bytes_sent"]), (&200.into(), &5.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_ends_the_connection_and_is_recorded_so() {
    let origins =
        [("short", RawOrigin::start(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\nhalf").await)];
    let daemon = serving(&origins).await;
    let answer = raw_exchange(daemon.http(), b"GET / HTTP/1.1\r\nhost: short.test\r\n\r\n", wait::SOON).await;
    assert!(String::from_utf8_lossy(&answer).ends_with("\r\n\r\nhalf"), "it is closed and not completed");
    let record = wait::for_some(wait::SOON, "the record", async || {
        daemon.read("log/access.log").lines().find_map(|it| serde_json::from_str::<Value>(it).ok())
    })
    .await;
    assert_eq!(record["aborted"], true, "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_it_waits_is_noticed() {
    // Accepts and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let site = format!("[backends.\"silent.test\"]\nurl = \"http://{}\"\n", silent.local_addr().expect("bound"));
    let daemon = Daemon::start(&format!("{CONFIG}{site}")).await;
    let mut wire = Wire::to(&daemon).await;
    wire.0.write_all(b"GET / HTTP/1.1\r\nhost: silent.test\r\n\r\n").await.expect("it is open");
    let (mut upstream, _) = silent.accept().await.expect("the request is forwarded");
    drop(wire);
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(wait::SOON, upstream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the upstream is told");
    let record = wait::for_some(wait::SOON, "the record", async || {
        daemon.read("log/access.log").lines().find_map(|it| serde_json::from_str::<Value>(it).ok())
    })
    .await;
    assert_eq!((&record["status"], &record["aborted"]), (&499.into(), &true.into()), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_one_another_are_answered_in_order() {
    let origins = [("length", RawOrigin::start(ANSWERS[0].1).await), ("chunked", RawOrigin::start(ANSWERS[2].1).await)];
    let daemon = serving(&origins).await;
    let hosts = ["length.test", "files.test", "chunked.test", "length.test", "nobody.test", "chunked.test"];
    let pipeline: String = hosts.iter().map(|it| format!("GET /said HTTP/1.1\r\nhost: {it}\r\n\r\n")).collect();
    for chop in [pipeline.len(), 11, 1] {
        let mut wire = Wire::to(&daemon).await;
        for piece in pipeline.as_bytes().chunks(chop) {
            wire.0.write_all(piece).await.expect("it is open");
        }
        for (host, expected) in hosts.iter().zip(["hello", "said", "abcdefg", "hello", "", "abcdefg"]) {
            let (head, body) = wire.answer().await;
            assert!(expected.is_empty() || body == expected.as_bytes(), "{chop} {host}: {head:?}");
        }
    }
}
