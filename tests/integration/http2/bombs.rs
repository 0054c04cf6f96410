//! Heads that are small on the wire and large when they are read, or simply too large: they cost no memory, and the client
//! hears of it.

use harness::{
    Daemon,
    h2::{CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RawH2, block, frame},
    wait,
};

use http::{HeaderValue, Request};

use super::{ENHANCE_YOUR_CALM, FILES, GET, cut, time::client};

/// What a request may cost the daemon at most when everything about it is refused.
const GROWTH_MAX: usize = 24 << 20;
/// `:status` by its index, then 431 in Huffman's code.
const TOO_LARGE: &[u8] = b"\x48\x83\x69\x90\xff";

/// An integer with a prefix of seven bits (RFC 7541, 5.1).
fn integer(first: u8, mut value: usize) -> Vec<u8> {
    if value < 127 {
        return vec![first | u8::try_from(value).expect("seven bits")];
    }
    let mut bytes = vec![first | 127];
    value -= 127;
    while value >= 128 {
        bytes.push(u8::try_from(value % 128).expect("seven bits") | 128);
        value /= 128;
    }
    bytes.push(u8::try_from(value).expect("seven bits"));
    bytes
}

/// A field with a long value, with or without a place in the table.
fn long(first: u8, length: usize) -> Vec<u8> {
    [vec![first], integer(0, 6), b"x-long".to_vec(), integer(0, length), vec![b'a'; length]].concat()
}

/// The most memory that the daemon has ever had.
fn peak(daemon: &Daemon) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|it| it.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).and_then(|it| it.parse::<usize>().ok()).unwrap() * 1024
}

async fn serving() -> Daemon {
    let config = format!("[admin]\nlisten = \"127.0.0.1:{{port2}}\"\n{FILES}");
    let daemon = Daemon::builder(&config).file("a", "hello").start().await;
    assert_eq!(daemon.get("/a").await.text(), "hello");
    daemon
}

/// What the client hears first of its request: a 431 or the end of the connection.
async fn is_refused(client: &mut RawH2) -> bool {
    while let Some(frame) = client.next().await {
        match frame.kind {
            HEADERS => return frame.payload.starts_with(TOO_LARGE),
            GOAWAY => return true,
            _ => {}
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_named_a_thousand_times_costs_no_memory() {
    let daemon = serving().await;
    let before = peak(&daemon);
    // An entry of almost the whole table, and then the one byte that stands for it, again and again: 40 MB in a frame.
    let bomb = [block(&GET), long(0x40, 3900), vec![0xbe; 10_000]].concat();
    for _ in 0..20 {
        let mut client = RawH2::connect(daemon.http()).await;
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &bomb).await.unwrap();
        let goaway = client.until(GOAWAY).await.expect("a goodbye");
        assert_eq!(goaway.payload[4..8], ENHANCE_YOUR_CALM);
    }
    wait::until(wait::SOON, "all are counted", async || cut(&daemon, "header-bomb").await == 20).await;
    assert_eq!(daemon.get("/a").await.text(), "hello");
    let grown = peak(&daemon) - before;
    assert!(grown < GROWTH_MAX, "{grown} bytes for 20 bombs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_over_the_limit_is_refused_and_the_connection_goes_on() {
    let daemon = serving().await;
    let mut client = RawH2::connect(daemon.http()).await;
    let head = [block(&GET), long(0, 70_000)].concat();
    let mut pieces = head.chunks(16_000).peekable();
    let mut bytes = frame(HEADERS, END_STREAM, 1, pieces.next().unwrap());
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        bytes.extend(frame(CONTINUATION, last, 1, piece));
    }
    client.bytes(&bytes).await.unwrap();
    assert!(is_refused(&mut client).await);
    client.send(HEADERS, END_HEADERS | END_STREAM, 3, &block(&GET)).await.unwrap();
    let head = client.until(HEADERS).await.expect("an answer");
    assert_eq!((head.stream, head.payload[0]), (3, 0x88), "a 200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_over_the_limit_has_its_record() {
    let daemon = serving().await;
    let request = Request::get("http://localhost/a").header("x-long", "a".repeat(40_000)).body(()).unwrap();
    let (answer, _) = client(&daemon).await.send_request(request, true).unwrap();
    let answer = answer.await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["miwi-reason"]),
        (431, &HeaderValue::from_static("limit-header"))
    );
    wait::until(wait::SOON, "it is on record", async || daemon.read("access.log").contains("\"limit-header\"")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_an_end_is_not_read_for_ever() {
    let daemon = serving().await;
    let before = peak(&daemon);
    let mut client = RawH2::connect(daemon.http()).await;
    let _ = client.send(HEADERS, END_STREAM, 1, &block(&GET)).await;
    let piece = frame(CONTINUATION, 0, 1, &long(0, 16_000)[..16_000]);
    // The daemon may have closed before all of it is sent.
    for _ in 0..200 {
        if client.bytes(&piece).await.is_err() {
            break;
        }
    }
    assert!(is_refused(&mut client).await);
    let grown = peak(&daemon) - before;
    assert!(grown < GROWTH_MAX, "{grown} bytes");
}
