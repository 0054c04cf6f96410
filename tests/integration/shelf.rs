//! Answers from the shelf beside those of the long way: the same bytes, the same records, and never an old file. Whether an
//! answer came from the shelf, a counter says; the first of its kind never does.

use std::fs;

use harness::{Daemon, wait};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::tls::client::{Authority, Wants, client, connect};

const CONFIG: &str = r#"
[server]
workers = 1
bind = ["127.0.0.1"]
http_port = {port}

[admin]
listen = "127.0.0.1:{port2}"

[backends."a.test"]
root = "{dir}/www"

[backends."a.test".files]
cache_control = "max-age=60"

[security.headers]
x_frame_options = "DENY"
strict_transport_security = "max-age=31536000"

[logging.access_log]
enabled = true
path = "{dir}/log/access.log"
format = "json"
buffer_size = 1
"#;

/// Around every threshold: nothing, one write, two, sendfile, more than one stretch of it.
const SIZES: [usize; 9] = [0, 1, 1000, 7800, 9000, 16 << 10, 100_000, 1 << 20, 3_000_001];

const HUGE: u64 = 64 << 20;

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|it| (it * 31 % 251) as u8).collect()
}

async fn serving() -> Daemon {
    serving_with(CONFIG).await
}

async fn serving_with(config: &str) -> Daemon {
    let daemon = Daemon::builder(config).file("www/index.html", "index").start().await;
    for size in SIZES {
        fs::write(daemon.dir().join(format!("www/{size}.bin")), content(size)).expect("there is space");
    }
    daemon
}

async fn shelf_answers(daemon: &Daemon) -> u64 {
    let page =
        harness::get(daemon.address(2), "localhost", "/metrics").await.expect("the admin listener answers").text();
    let line = page.lines().find_map(|it| it.strip_prefix("miwid_shelf_answers_total ")).expect("the counter is there");
    line.parse().expect("it is a number")
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A client that keeps its connection and sees every byte.
struct Wire(Box<dyn Io>);

impl Wire {
    async fn to(daemon: &Daemon) -> Self {
        Self(Box::new(TcpStream::connect(daemon.http()).await.expect("it listens")))
    }

    async fn over_tls(daemon: &Daemon, name: &str, authority: &Authority) -> Self {
        let config = client(&authority.pem, &Wants { alpn: &["http/1.1"], ..Wants::default() });
        Self(Box::new(connect(daemon.address(3), name, &config).await.expect("a handshake")))
    }

    async fn send(&mut self, target: &str, fields: &str) {
        let head = format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n");
        self.0.write_all(head.as_bytes()).await.expect("it is open");
    }

    /// Head and body of the next answer, read byte for byte as its length says.
    async fn answer(&mut self) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = tokio::time::timeout(wait::SOON, self.0.read_u8()).await.expect("an answer comes");
            head.push(byte.unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&head))));
        }
        let head = String::from_utf8(head).expect("heads are text");
        let length =
            head.lines().find_map(|it| it.strip_prefix("content-length: ")).map_or(0, |it| it.parse().unwrap());
        let mut body = vec![0; length];
        let read = tokio::time::timeout(wait::SOON, self.0.read_exact(&mut body)).await.expect("the body comes");
        read.expect("all of it");
        (head, body)
    }

    async fn ask(&mut self, target: &str, fields: &str) -> (String, Vec<u8>) {
        self.send(target, fields).await;
        self.answer().await
    }
}

/// Asks until the shelf answers: a file that has just been written is not kept yet.
async fn shelve(daemon: &Daemon, target: &str, fields: &str) {
    wait::until(wait::SOON, &format!("{target} is on the shelf"), async || {
        let mut wire = Wire::to(daemon).await;
        let before = shelf_answers(daemon).await;
        wire.ask(target, fields).await;
        wire.ask(target, fields).await;
        shelf_answers(daemon).await > before
    })
    .await;
}

/// Asks until the answer is one from the shelf: on a busy machine the file may have to be looked at again in between.
async fn from_shelf(daemon: &Daemon, wire: &mut Wire, target: &str, fields: &str) -> (String, Vec<u8>) {
    let end = tokio::time::Instant::now() + wait::SOON;
    loop {
        let before = shelf_answers(daemon).await;
        let answer = wire.ask(target, fields).await;
        if shelf_answers(daemon).await > before {
            return answer;
        }
        assert!(tokio::time::Instant::now() < end, "{target} {fields} never comes from the shelf");
        // A 304 does not bring back what has become too old meanwhile.
        wire.ask(target, if fields.starts_with("accept") { fields } else { "" }).await;
    }
}

/// Status and fields, in an order of our own and without the time.
fn undated(head: &str) -> Vec<&str> {
    let mut lines: Vec<_> = head.split("\r\n").filter(|it| !it.starts_with("date: ")).collect();
    assert_eq!(lines.len() + 1, head.split("\r\n").count(), "one date: {head}");
    lines[1..].sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_give_the_same_bytes() {
    let daemon = serving().await;
    let mut wire = Wire::to(&daemon).await;
    for size in SIZES {
        let target = format!("/{size}.bin");
        shelve(&daemon, &target, "").await;
        let etag = wire.ask(&target, "").await.0;
        let etag = etag.lines().find_map(|it| it.strip_prefix("etag: ")).expect("it has one").to_owned();
        let same = format!("if-none-match: {etag}\r\n");
        let dated = format!("if-none-match: {etag}\r\nif-modified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        for fields in ["", "accept-encoding: gzip\r\n", "if-none-match: \"x\"\r\n", &same, &dated] {
            // A query makes it another target; asked for the first time, it takes the long way.
            let other = format!("{target}?{}", fields.len());
            let before = shelf_answers(&daemon).await;
            let long = wire.ask(&other, fields).await;
            assert_eq!(shelf_answers(&daemon).await, before, "{other} was not known");
            assert!(long.1 == if long.0.contains(" 304 ") { Vec::new() } else { content(size) }, "{other}");
            shelve(&daemon, &other, if fields.starts_with("accept") { fields } else { "" }).await;
            let short = if fields.contains("\"x\"") {
                wire.ask(&other, fields).await
            } else {
                from_shelf(&daemon, &mut wire, &other, fields).await
            };
            assert_eq!(undated(&short.0), undated(&long.0), "{other} {fields}");
            assert!(short.0.contains("x-frame-options: DENY\r\n"), "{}", short.0);
            assert!(short.1 == long.1, "{other} {fields}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_and_chopped_requests_stay_in_order_on_both_ways() {
    let daemon = serving().await;
    let mut wire = Wire::to(&daemon).await;
    shelve(&daemon, "/1000.bin", "").await;
    shelve(&daemon, "/3000001.bin", "").await;
    let mut pipeline = String::new();
    for target in ["/1000.bin", "/3000001.bin", "/1000.bin", "/nothing", "/1000.bin", "/3000001.bin"] {
        pipeline.push_str(&format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n\r\n"));
    }
    for chop in [pipeline.len(), 7, 1] {
        let reading = async |wire: &mut Wire| {
            for size in [1000, 3_000_001, 1000, 0, 1000, 3_000_001] {
                let (head, body) = wire.answer().await;
                assert_eq!(head.starts_with("HTTP/1.1 404 "), size == 0, "{head}");
                assert!(size == 0 || body == content(size), "{head}");
            }
        };
        for piece in pipeline.as_bytes().chunks(chop) {
            wire.0.write_all(piece).await.expect("it is open");
        }
        reading(&mut wire).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_both_ways_say_the_same() {
    let daemon = serving().await;
    let mut wire = Wire::to(&daemon).await;
    shelve(&daemon, "/1000.bin", "").await;
    let fields = "user-agent: tester \"1\"\r\nreferer: http://b.test/\r\n";
    let before = shelf_answers(&daemon).await;
    wire.ask("/1000.bin?record", fields).await;
    assert_eq!(shelf_answers(&daemon).await, before);
    shelve(&daemon, "/1000.bin?record", "").await;
    from_shelf(&daemon, &mut wire, "/1000.bin?record", fields).await;
    let records = wait::for_some(wait::SOON, "two records of the tester", async || {
        let log = daemon.read("log/access.log");
        let records: Vec<Value> = log.lines().filter_map(|it| serde_json::from_str(it).ok()).collect();
        let of_tester: Vec<_> = records.into_iter().filter(|it| it.to_string().contains("tester")).collect();
        (of_tester.len() >= 2).then_some(of_tester)
    })
    .await;
    let lasting = |record: &Value| {
        let mut record = record.as_object().expect("a record is an object").clone();
        for own in ["timestamp", "response_time_ms", "request_id"] {
            assert!(record.remove(own).is_some(), "{own} is missing");
        }
        record
    };
    let last = records.last().expect("two at least");
    assert_eq!(lasting(&records[0]), lasting(last));
    assert_eq!(records[0]["bytes_sent"], 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_seen_within_a_second_and_never_half() {
    let daemon = serving().await;
    let mut wire = Wire::to(&daemon).await;
    shelve(&daemon, "/1000.bin", "").await;
    let old = wire.ask("/1000.bin", "").await;
    let next = daemon.dir().join("www/next");
    fs::write(&next, b"next").expect("there is space");
    fs::rename(next, daemon.dir().join("www/1000.bin")).expect("it is replaced");
    wait::until(wait::SOON, "the new file is served", async || {
        let (head, body) = Wire::to(&daemon).await.ask("/1000.bin", "").await;
        assert!(body == b"next" || (body == old.1 && undated(&head) == undated(&old.0)), "{head}");
        body == b"next"
    })
    .await;
    let end = tokio::time::Instant::now() + wait::SOON;
    while wire.ask("/1000.bin", "").await.1 != b"next" {
        assert!(tokio::time::Instant::now() < end, "on an old connection, too");
    }
    fs::remove_file(daemon.dir().join("www/1000.bin")).expect("it is there");
    wait::until(wait::SOON, "its removal is seen", async || {
        Wire::to(&daemon).await.ask("/1000.bin", "").await.0.starts_with("HTTP/1.1 404 ")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_empties_the_shelf() {
    let daemon = serving().await;
    let mut wire = Wire::to(&daemon).await;
    shelve(&daemon, "/1000.bin", "").await;
    assert!(wire.ask("/1000.bin", "").await.0.contains("cache-control: max-age=60\r\n"));
    daemon.rewrite_config(&CONFIG.replace("max-age=60", "no-cache"));
    daemon.reload().await;
    let (head, _) = wire.ask("/1000.bin", "").await;
    assert!(head.contains("cache-control: no-cache\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_time_gets_everything_and_one_that_leaves_is_recorded() {
    let daemon = serving().await;
    let mut wire = Wire::to(&daemon).await;
    shelve(&daemon, "/3000001.bin", "").await;
    wire.send("/3000001.bin?slow", "").await;
    wire.answer().await;
    // On the shelf now. More than the buffers on the way can hold waits until it is read.
    wire.send("/3000001.bin?slow", "").await;
    wire.send("/1000.bin", "").await;
    assert!(wire.answer().await.1 == content(3_000_001));
    assert!(wire.answer().await.1 == content(1000));
    // Nobody's buffers hold this.
    let huge = fs::File::create(daemon.dir().join("www/huge.bin")).expect("there is space");
    huge.set_len(HUGE).expect("holes take none");
    shelve(&daemon, "/huge.bin", "").await;
    wire.send("/huge.bin", "user-agent: leaver\r\n").await;
    assert!(wire.0.read_u8().await.is_ok());
    drop(wire);
    let record: Value = wait::for_some(wait::SOON, "the record of the one who left", async || {
        let log = daemon.read("log/access.log");
        log.lines().find(|it| it.contains("leaver")).and_then(|it| serde_json::from_str(it).ok())
    })
    .await;
    assert!(record["bytes_sent"].as_u64() < Some(HUGE), "{record}");
    assert_eq!(record["aborted"], true, "{record}");
}

/// A socket that is closed over something unread takes back what is on its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_answer_arrives_whole_though_the_client_goes_on_talking() {
    let daemon = serving().await;
    let huge = fs::File::create(daemon.dir().join("www/huge.bin")).expect("there is space");
    // More than sockets hold.
    huge.set_len(HUGE / 2).expect("holes take none");
    shelve(&daemon, "/huge.bin", "").await;
    wait::until(wait::SOON, "a last answer comes from the shelf", async || {
        let before = shelf_answers(&daemon).await;
        Wire::to(&daemon).await.ask("/huge.bin", "").await;
        let mut wire = Wire::to(&daemon).await;
        wire.send("/huge.bin", "connection: close\r\n").await;
        wire.0.read_u8().await.expect("it has begun");
        wire.send("/1000.bin", "").await;
        let mut rest = Vec::new();
        let read = tokio::time::timeout(wait::SOON, wire.0.read_to_end(&mut rest)).await.expect("it ends");
        assert!(read.as_ref().is_ok_and(|it| *it as u64 > HUGE / 2), "{} bytes, then {read:?}", rest.len());
        shelf_answers(&daemon).await > before + 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_it_is_the_same_and_only_for_hosts_of_the_connection() {
    let authority = Authority::new();
    let pair = |name: &str| authority.issue(&[name]);
    let (a, b) = (pair("a.test"), pair("b.test"));
    let tls = "[ssl]\ncert = \"{dir}/a.pem\"\nkey = \"{dir}/a.key\"\n[backends.\"b.test\"]\nroot = \"{dir}/www\"\n\
               [backends.\"b.test\".ssl]\ncert = \"{dir}/b.pem\"\nkey = \"{dir}/b.key\"\n";
    let config = CONFIG.replace("[admin]", "https_port = {port3}\nhttp3 = false\n[admin]");
    let builder = Daemon::builder(&format!("{config}{tls}")).file("a.pem", &a.cert).file("a.key", &a.key);
    let daemon = builder.file("b.pem", &b.cert).file("b.key", &b.key).file("www/x", "x").start().await;
    for size in SIZES {
        fs::write(daemon.dir().join(format!("www/{size}.bin")), content(size)).expect("there is space");
    }
    shelve(&daemon, "/1000.bin", "").await;
    let mut wire = Wire::over_tls(&daemon, "a.test", &authority).await;
    // Too large to be kept in memory, the last takes the long way each time.
    for size in SIZES.into_iter().filter(|it| *it <= 1 << 20) {
        let target = format!("/{size}.bin");
        let long = wire.ask(&target, "").await;
        let short = from_shelf(&daemon, &mut wire, &target, "").await;
        assert_eq!(undated(&short.0), undated(&long.0), "{target}");
        assert!(short.0.contains("strict-transport-security: max-age=31536000\r\n"), "{}", short.0);
        assert!(short.1 == content(size) && long.1 == short.1, "{target}");
    }
    assert!(wire.ask("/3000001.bin", "").await.1 == content(3_000_001));
    let mut other = Wire::over_tls(&daemon, "b.test", &authority).await;
    let (head, _) = other.ask("/1000.bin", "").await;
    assert!(head.starts_with("HTTP/1.1 421 "), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_does_not_outlive_its_original_however_many_ask_for_it() {
    let config = CONFIG.replace("cache_control", "precompressed = true\ncache_control");
    let daemon = Daemon::builder(&config).file("www/app.js", "old").start().await;
    let www = daemon.dir().join("www");
    fs::write(www.join("app.js.gz"), "sibling").expect("there is space");
    let (many, one) = ("accept-encoding: gzip\r\n", "accept-encoding: gzip, deflate\r\n");
    for fields in [many, one] {
        shelve(&daemon, "/app.js", fields).await;
        assert_eq!(Wire::to(&daemon).await.ask("/app.js", fields).await.1, b"sibling");
    }
    fs::write(www.join("next"), "new").expect("there is space");
    fs::rename(www.join("next"), www.join("app.js")).expect("it is replaced");
    // Whoever is busy finds out first, and looks at the sibling again and again; that must not keep it alive for others. Both
    // times are the daemon's own.
    let (seen, first) = tokio::sync::oneshot::channel();
    let (mut busy, mut seen) = (Wire::to(&daemon).await, Some(seen));
    let busy = tokio::spawn(async move {
        loop {
            let (head, body) = busy.ask("/app.js", many).await;
            if let Some(seen) = seen.take_if(|_| body == b"new") {
                let _ = seen.send(date(&head));
            }
        }
    });
    let first = tokio::time::timeout(wait::SOON, first).await.expect("the busy one sees it").expect("it asks on");
    let late = wait::for_some(wait::SOON, "an answer of two seconds later", async || {
        let (head, body) = Wire::to(&daemon).await.ask("/app.js", one).await;
        (date(&head) >= first + 2).then_some(body)
    })
    .await;
    busy.abort();
    assert_eq!(late, b"new");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_more_than_one_line_decided_is_for_nobody_else() {
    let config = CONFIG.replace("cache_control", "precompressed = true\ncache_control");
    let daemon = Daemon::builder(&config).file("www/app.js", "original").start().await;
    fs::write(daemon.dir().join("www/app.js.gz"), "sibling").expect("there is space");
    let gzip = "accept-encoding: gzip\r\n";
    shelve(&daemon, "/app.js", gzip).await;
    for (at, first) in ["", "accept-encoding:\r\n", "accept-encoding: identity\r\n"].into_iter().enumerate() {
        let target = format!("/app.js?{at}");
        let (two, other) = (format!("{}{gzip}", if at == 0 { "accept-encoding:\r\n" } else { first }), first);
        for _ in 0..3 {
            assert_eq!(Wire::to(&daemon).await.ask(&target, &two).await.1, b"sibling", "{two}");
            assert_eq!(Wire::to(&daemon).await.ask(&target, other).await.1, b"original", "{other}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_not_taken_its_answer_is_not_idle() {
    let daemon = serving_with(&CONFIG.replace("workers = 1", "workers = 1\nkeepalive_timeout = \"1s\"")).await;
    let target = "/1048576.bin";
    // From memory, so that all of an answer is at hand at once; and more of them than sockets hold.
    const ANSWERS: usize = 10;
    shelve(&daemon, target, "").await;
    for (at, fields) in ["", "accept-encoding: gzip\r\naccept-encoding: br\r\n"].into_iter().enumerate() {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("it may be small");
        let mut slow = Wire(Box::new(socket.connect(daemon.http()).await.expect("it listens")));
        for number in 0..ANSWERS {
            slow.send(&format!("{target}?{at}{number}"), fields).await;
        }
        for _ in 0..2 {
            let mut idle = Wire::to(&daemon).await;
            idle.ask("/1.bin", "").await;
            let ended = tokio::time::timeout(wait::SOON, idle.0.read_u8()).await.expect("an idle one is let go");
            assert!(ended.is_err(), "without a word");
        }
        for number in 0..ANSWERS {
            let (head, body) = slow.answer().await;
            assert!(head.starts_with("HTTP/1.1 200") && body == content(1 << 20), "{number}: {head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tag_is_nobodys() {
    let config = CONFIG.replace("x_frame_options", "etag = \"\"\nx_frame_options");
    let daemon = Daemon::builder(&config).file("www/a", "content").start().await;
    shelve(&daemon, "/a", "").await;
    for _ in 0..3 {
        let mut wire = Wire::to(&daemon).await;
        assert_eq!(wire.ask("/a", "").await.1, b"content");
        let (head, body) = wire.ask("/a", "if-none-match:\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200") && body == b"content", "{head}");
    }
}

/// In seconds.
fn date(head: &str) -> u64 {
    let date = head.split("\r\n").find_map(|it| it.strip_prefix("date: ")).expect("every answer has one");
    let date = httpdate::parse_http_date(date).expect("it is a date");
    date.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}
