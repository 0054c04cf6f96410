//! RFC 9113 and RFC 7541 by the letter, in raw frames: what a client must not send, each with the error that it gets, and
//! what it may send although few do. The app behind never answers, so that no answer can come before a judgement.

use harness::{
    Daemon,
    h2::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, RawH2, SETTINGS, block, frame,
    },
};
use tokio::net::TcpListener;

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const PADDED: u8 = 8;
const PRIORITIZED: u8 = 0x20;

const PROTOCOL: u8 = 1;
const FLOW_CONTROL: u8 = 3;
const STREAM_CLOSED: u8 = 5;
const FRAME_SIZE: u8 = 6;
const COMPRESSION: u8 = 9;

type Fields = &'static [(&'static str, &'static str)];
const POST: Fields = &[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "silent.test")];

/// A site whose app takes requests and never answers.
async fn silent() -> (Daemon, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let site = format!("[backends.\"silent.test\"]\nurl = \"http://{}\"\n", listener.local_addr().expect("bound"));
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    (Daemon::start(&site).await, task)
}

fn open(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(POST))
}

fn request(fields: Fields) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

fn with(extra: Fields) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[POST, extra].concat()))
}

fn setting(id: u8, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, id], &value.to_be_bytes()[..]].concat())
}

fn then(first: Vec<u8>, second: Vec<u8>) -> Vec<u8> {
    [first, second].concat()
}

/// Only the head of a frame: what is sent behind a refusal could take the refusal along when the connection is closed.
fn announced(frame: Vec<u8>) -> Vec<u8> {
    frame[..9].to_vec()
}

/// A request whose block has `bytes` before its fields.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &[bytes, &block(POST)].concat())
}

/// What is sent, and the code that it gets, on the stream or on the connection. Where two are named, the narrow one is the
/// RFC's and the library under us says the general one; what it ends is the same.
fn wrong() -> Vec<(&'static str, Vec<u8>, &'static [u8])> {
    let unfinished = || frame(HEADERS, 0, 1, &block(POST));
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    vec![
        ("DATA of no stream", frame(DATA, 0, 0, b"x"), &[PROTOCOL]),
        ("HEADERS of no stream", frame(HEADERS, END_HEADERS, 0, &block(POST)), &[PROTOCOL]),
        ("PRIORITY of no stream", frame(PRIORITY, 0, 0, &[0, 0, 0, 3, 1]), &[PROTOCOL]),
        ("RST_STREAM of no stream", frame(RST_STREAM, 0, 0, &[0; 4]), &[PROTOCOL]),
        ("CONTINUATION of no stream", frame(CONTINUATION, END_HEADERS, 0, b""), &[PROTOCOL]),
        ("SETTINGS of a stream", frame(SETTINGS, 0, 1, b""), &[PROTOCOL]),
        ("PING of a stream", frame(PING, 0, 1, &[0; 8]), &[PROTOCOL]),
        ("GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), &[PROTOCOL]),
        ("a short PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3]), &[FRAME_SIZE, PROTOCOL]),
        ("a short RST_STREAM", then(open(1, 0), frame(RST_STREAM, 0, 1, &[0; 3])), &[FRAME_SIZE, PROTOCOL]),
        ("a short SETTINGS", frame(SETTINGS, 0, 0, &[0; 5]), &[FRAME_SIZE, PROTOCOL]),
        ("a SETTINGS with ACK and more", frame(SETTINGS, ACK, 0, &[0; 6]), &[FRAME_SIZE, PROTOCOL]),
        ("a short PING", frame(PING, 0, 0, &[0; 7]), &[FRAME_SIZE, PROTOCOL]),
        ("a short WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), &[FRAME_SIZE, PROTOCOL]),
        ("a long DATA", then(open(1, 0), announced(frame(DATA, 0, 1, &[0; 16_385]))), &[FRAME_SIZE]),
        ("a long HEADERS", announced(frame(HEADERS, END_HEADERS, 1, &[0; 16_385])), &[FRAME_SIZE]),
        ("ENABLE_PUSH of 2", setting(2, 2), &[PROTOCOL]),
        ("INITIAL_WINDOW_SIZE over the top", setting(4, 1 << 31), &[FLOW_CONTROL, PROTOCOL]),
        ("MAX_FRAME_SIZE below the least", setting(5, 16_383), &[PROTOCOL]),
        ("MAX_FRAME_SIZE over the most", setting(5, 1 << 24), &[PROTOCOL]),
        ("a WINDOW_UPDATE by nothing", window(0, 0), &[PROTOCOL]),
        ("the same of a stream", then(open(1, 0), window(1, 0)), &[PROTOCOL]),
        ("a window over the top", then(window(0, i32::MAX as u32), window(0, 1)), &[FLOW_CONTROL]),
        ("the same of a stream", then(open(1, 0), window(1, i32::MAX as u32)), &[FLOW_CONTROL]),
        ("more padding than DATA", then(open(1, 0), frame(DATA, PADDED, 1, &[9, 0])), &[PROTOCOL]),
        ("more padding than HEADERS", frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 0]), &[PROTOCOL]),
        ("PUSH_PROMISE of a client", then(open(1, 0), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])), &[PROTOCOL]),
        ("a stream of a server", open(2, END_STREAM), &[PROTOCOL]),
        ("a stream below the last", then(open(5, 0), open(3, 0)), &[PROTOCOL, STREAM_CLOSED]),
        ("DATA of an idle stream", frame(DATA, END_STREAM, 1, b"x"), &[PROTOCOL]),
        ("RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), &[PROTOCOL]),
        ("WINDOW_UPDATE of an idle stream", window(1, 1), &[PROTOCOL]),
        ("CONTINUATION of nothing", then(open(1, 0), frame(CONTINUATION, END_HEADERS, 1, b"")), &[PROTOCOL]),
        ("DATA within a head", then(unfinished(), frame(DATA, END_STREAM, 1, b"x")), &[PROTOCOL]),
        ("PING within a head", then(unfinished(), frame(PING, 0, 0, &[0; 8])), &[PROTOCOL]),
        ("another head within a head", then(unfinished(), open(3, END_STREAM)), &[PROTOCOL]),
        ("an unknown frame within a head", then(unfinished(), frame(0x16, 0, 0, b"x")), &[PROTOCOL]),
        ("CONTINUATION of another stream", then(unfinished(), frame(CONTINUATION, END_HEADERS, 3, b"")), &[PROTOCOL]),
        (
            "DATA behind the end",
            then(open(1, END_STREAM), frame(DATA, END_STREAM, 1, b"x")),
            &[STREAM_CLOSED, PROTOCOL],
        ),
        ("HEADERS behind the end", then(open(1, END_STREAM), open(1, END_STREAM)), &[STREAM_CLOSED, PROTOCOL]),
        (
            "a head that depends on itself",
            frame(HEADERS, END_HEADERS | PRIORITIZED, 1, &[&[0, 0, 0, 1, 9][..], &block(POST)].concat()),
            &[PROTOCOL],
        ),
        ("a PRIORITY that depends on itself", then(open(1, 0), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9])), &[PROTOCOL]),
        ("index 0", compressed(&[0x80]), &[COMPRESSION, PROTOCOL]),
        ("an index beyond the tables", compressed(&[0xff, 0x20]), &[COMPRESSION, PROTOCOL]),
        ("a name beyond the tables", compressed(&[0x7f, 0x20, 1, b'x']), &[COMPRESSION, PROTOCOL]),
        ("a table over the limit", compressed(&[0x3f, 0xe2, 0xff, 0x7f]), &[COMPRESSION, PROTOCOL]),
        (
            "a table that changes behind fields",
            frame(HEADERS, END_HEADERS, 1, &[&block(POST)[..], &[0x20]].concat()),
            &[COMPRESSION, PROTOCOL],
        ),
        (
            "the end of a Huffman string spelled out",
            compressed(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
            &[COMPRESSION, PROTOCOL],
        ),
        ("a Huffman string padded with zeros", compressed(&[0, 1, b'x', 0x81, 0x00]), &[COMPRESSION, PROTOCOL]),
        (
            "a block that breaks off",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0, 5, b'x']),
            &[COMPRESSION, PROTOCOL],
        ),
        ("an upper-case name", with(&[("X-A", "b")]), &[PROTOCOL]),
        ("an unknown pseudo-header", with(&[(":other", "b")]), &[PROTOCOL]),
        ("a pseudo-header of answers", with(&[(":status", "200")]), &[PROTOCOL]),
        (
            "a pseudo-header behind others",
            request(&[("x", "y"), (":method", "POST"), (":scheme", "http"), (":path", "/")]),
            &[PROTOCOL],
        ),
        ("Connection", with(&[("connection", "keep-alive")]), &[PROTOCOL]),
        ("Transfer-Encoding", with(&[("transfer-encoding", "chunked")]), &[PROTOCOL]),
        ("TE of something else", with(&[("te", "trailers, deflate")]), &[PROTOCOL]),
        ("no method", request(&[(":scheme", "http"), (":path", "/")]), &[PROTOCOL]),
        ("no scheme", request(&[(":method", "GET"), (":path", "/")]), &[PROTOCOL]),
        ("no path", request(&[(":method", "GET"), (":scheme", "http"), (":authority", "silent.test")]), &[PROTOCOL]),
        ("an empty path", request(&[(":method", "GET"), (":scheme", "http"), (":path", "")]), &[PROTOCOL]),
        ("two methods", with(&[(":method", "GET")]), &[PROTOCOL]),
        ("two paths", with(&[(":path", "/")]), &[PROTOCOL]),
        ("two schemes", with(&[(":scheme", "http")]), &[PROTOCOL]),
        (
            "trailers without an end",
            then(open(1, 0), frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]))),
            &[PROTOCOL],
        ),
        (
            "a length that is too small",
            then(
                frame(HEADERS, END_HEADERS, 1, &block(&[POST, &[("content-length", "1")]].concat())),
                frame(DATA, END_STREAM, 1, b"four"),
            ),
            &[PROTOCOL],
        ),
        (
            "a length that is too large",
            then(
                frame(HEADERS, END_HEADERS, 1, &block(&[POST, &[("content-length", "9")]].concat())),
                frame(DATA, END_STREAM, 1, b"four"),
            ),
            &[PROTOCOL],
        ),
    ]
}

/// The code of the first error that comes.
async fn verdict(client: &mut RawH2) -> Option<u8> {
    loop {
        let frame = client.next().await?;
        match frame.kind {
            RST_STREAM => return frame.payload.last().copied(),
            GOAWAY => return frame.payload.get(7).copied(),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_must_not_send_gets_its_error_and_others_are_served() {
    let (daemon, app) = silent().await;
    let cases = wrong();
    assert!(cases.len() >= 60);
    let mut surprises = Vec::new();
    for (what, bytes, codes) in cases {
        let mut client = RawH2::connect(daemon.http()).await;
        // The daemon may close before it has read it all.
        let _ = client.bytes(&bytes).await;
        let code = verdict(&mut client).await;
        if !code.is_some_and(|it| codes.contains(&it)) {
            surprises.push(format!("{what}: {code:?} and not {codes:?}"));
        }
    }
    assert!(surprises.is_empty(), "{surprises:#?}");
    assert_eq!(daemon.get("/health").await.status, 200);
    app.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_may_send_disturbs_nothing() {
    let (daemon, app) = silent().await;
    let split = |at: usize| {
        let block = block(POST);
        then(frame(HEADERS, 0, 1, &block[..at]), frame(CONTINUATION, END_HEADERS, 1, &block[at..]))
    };
    let cases = [
        ("an unknown frame", frame(0x16, 0xff, 0, b"anything")),
        ("an unknown frame of a stream", then(open(1, 0), frame(0x16, 0, 1, b"anything"))),
        ("an unknown setting", setting(0xee, 7)),
        ("unknown flags", frame(PING, 0xfe, 0, &[1; 8])),
        ("PRIORITY of an idle stream", frame(PRIORITY, 0, 7, &[0, 0, 0, 3, 1])),
        (
            "a head with a priority",
            frame(HEADERS, END_HEADERS | PRIORITIZED, 1, &[&[0, 0, 0, 3, 9][..], &block(POST)].concat()),
        ),
        ("a padded head", frame(HEADERS, END_HEADERS | PADDED, 1, &[&[2][..], &block(POST), &[0, 0]].concat())),
        ("padded data", then(open(1, 0), frame(DATA, PADDED | END_STREAM, 1, &[2, b'x', 0, 0]))),
        ("a head in two pieces", split(9)),
        ("a head in two pieces, one of them empty", split(0)),
        ("the reserved bit of a window", frame(WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 1])),
        ("the reserved bit of a stream", frame(WINDOW_UPDATE, 0, 1 << 31, &[0, 0, 0, 1])),
        ("a pong that nobody asked for", frame(PING, ACK, 0, &[3; 8])),
        ("a stream that is given up", then(open(1, 0), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]))),
        ("trailers", then(open(1, 0), frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x", "y")])))),
        ("TE of trailers", with(&[("te", "trailers")])),
        ("a smaller table", compressed(&[0x20])),
        ("a smaller window for answers", setting(4, 1)),
        ("a stream far above the last", open(1_000_001, END_STREAM)),
    ];
    for (what, bytes) in cases {
        let mut client = RawH2::connect(daemon.http()).await;
        client.bytes(&bytes).await.expect("it is taken");
        client.send(PING, 0, 0, b"in-order").await.expect("it is taken");
        loop {
            let frame = client.next().await.unwrap_or_else(|| panic!("{what}: the connection ended"));
            assert!(!matches!(frame.kind, GOAWAY | RST_STREAM), "{what}: {frame:?}");
            if frame.kind == PING && frame.payload == b"in-order" {
                break;
            }
        }
    }
    app.abort();
}
