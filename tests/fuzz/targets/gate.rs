//! A client's bytes on a connection: what the gate lets through is read by the parser behind it in one way only, and that
//! is the way a strict reader takes it. Everything else is a smuggled request. A request that does without the parser is one
//! that gate and parser would have read in the same way.
//!
//! An input is a byte that says in what pieces the rest arrives, then the bytes.
#![no_main]

use std::{
    cell::RefCell,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::{Corpus, fuzz_target};
use miwid::{
    net::{After, Desk, Flaw, Gated, Rules},
    server::fuzzing::{Unparsed, unparsed},
    snapshot::{Settings, Snapshot, build},
    tls::Tls,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    runtime::Runtime,
    task::LocalSet,
};

const RULES: Rules = Rules { target_max: 200, header_max: 2000, fields_max: 20 };
const LIMITS: &str = "[server]\n[server.limits]\nmax_uri_length = 200\nmax_header_size = 2000\nmax_headers = 20\nunderscore_headers = \"keep\"\n";
/// More than an input has, so that nobody waits for room.
const PIPE_BYTES: usize = 1 << 20;

thread_local! {
    static SNAPSHOT: Snapshot = snapshot();
    /// Those of the last request that the parser read.
    static HEADERS: RefCell<HeaderMap> = RefCell::default();
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
}

/// What came of a stream.
#[derive(Debug, PartialEq)]
struct Outcome {
    passed: Vec<u8>,
    refused: Option<Flaw>,
    broken: bool,
}

#[derive(Debug, PartialEq)]
struct Message {
    method: Vec<u8>,
    target: Vec<u8>,
    body: Vec<u8>,
    /// Nothing is read behind it.
    last: bool,
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((choice, sent)) = data.split_first() else { return Corpus::Reject };
    let whole = gated(sent, sent.len());
    for pieces in [1, usize::from(*choice) + 2] {
        assert_eq!(gated(sent, pieces), whole, "in pieces of {pieces}");
    }
    let again = gated(&whole.passed, whole.passed.len());
    assert!(again.refused.is_none() && !again.broken && again.passed == whole.passed, "{again:?} after {whole:?}");
    let meant = strictly(&whole.passed);
    let understood = parsed(&whole.passed);
    let shared = understood.len().min(meant.len());
    assert_eq!(understood, meant[..shared], "of {whole:?}");
    let closed = understood.last().is_some_and(|it| it.last);
    assert!(closed || shared == meant.len(), "{} of {} requests of {whole:?}", shared, meant.len());
    SNAPSHOT.with(|snapshot| without_parser(sent, &snapshot.settings));
    Corpus::Keep
});

fn without_parser(sent: &[u8], settings: &Settings) {
    let Some(Unparsed { length, content, is_last: last, request }) = unparsed(sent, settings) else { return };
    let whole = &sent[..length];
    let judged = gated(whole, length);
    assert!(judged.passed == whole && judged.refused.is_none() && !judged.broken, "{judged:?}");
    let (method, target) = (request.method().to_string().into_bytes(), request.uri().to_string().into_bytes());
    assert_eq!(parsed(whole), [Message { method, target, body: content.to_vec(), last }]);
    let read = HEADERS.with_borrow_mut(std::mem::take);
    assert_eq!(&read, request.headers());
}

/// Feeds the bytes in pieces and takes out what passes at once, so that no runtime is needed.
fn gated(sent: &[u8], pieces: usize) -> Outcome {
    let (ours, mut theirs) = duplex(PIPE_BYTES);
    let desk = Desk::default();
    // Every upgrade is declined at once.
    desk.answered(u64::MAX, After::Http);
    let mut io = Gated::new(ours, RULES, desk.clone());
    let mut outcome = Outcome { passed: Vec::new(), refused: None, broken: false };
    for piece in sent.chunks(pieces.max(1)) {
        send(&mut theirs, piece);
        take(&mut io, &mut outcome);
    }
    let requests = strictly_begun(&outcome.passed);
    if let Some(verdict) = (0..=requests as u64 + 1).find_map(|it| desk.verdict(it)) {
        outcome.refused = Some(verdict.flaw);
        let stand_in = [
            "GET / HTTP/1.1\r\nhost: _\r\nconnection: close\r\n\r\n",
            "HEAD / HTTP/1.1\r\nhost: _\r\nconnection: close\r\n\r\n",
        ];
        let stand_in = stand_in.iter().find(|it| outcome.passed.ends_with(it.as_bytes()));
        let length = outcome.passed.len() - stand_in.expect("the refused is replaced").len();
        outcome.passed.truncate(length);
    }
    outcome
}

fn send(theirs: &mut DuplexStream, piece: &[u8]) {
    let mut cx = Context::from_waker(Waker::noop());
    let sent = Pin::new(theirs).poll_write(&mut cx, piece);
    assert!(matches!(sent, Poll::Ready(Ok(n)) if n == piece.len()), "the pipe has room");
}

fn take(io: &mut Gated<DuplexStream>, outcome: &mut Outcome) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut room = [0; 512];
    loop {
        let mut buf = ReadBuf::new(&mut room);
        match Pin::new(&mut *io).poll_read(&mut cx, &mut buf) {
            Poll::Ready(Ok(())) if buf.filled().is_empty() => return,
            Poll::Ready(Ok(())) => outcome.passed.extend_from_slice(buf.filled()),
            Poll::Ready(Err(_)) => {
                outcome.broken = true;
                return;
            }
            Poll::Pending => return,
        }
    }
}

/// How hyper reads what passed.
fn parsed(passed: &[u8]) -> Vec<Message> {
    let (ours, mut theirs) = duplex(PIPE_BYTES);
    let messages = Rc::new(RefCell::new(Vec::new()));
    let seen = messages.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (head, body) = request.into_parts();
            HEADERS.set(head.headers.clone());
            let lengths = head.headers.get_all("content-length").iter().count();
            let codings = head.headers.get_all("transfer-encoding").iter().count();
            assert!(lengths + codings <= 1, "{head:?} is framed twice");
            let old = head.version == Version::HTTP_10;
            let last = old || head.headers.get_all("connection").iter().any(|it| closes(it.as_bytes()));
            if let Ok(body) = body.collect().await {
                let method = head.method.as_str().as_bytes().to_vec();
                let target = head.uri.to_string().into_bytes();
                seen.borrow_mut().push(Message { method, target, body: body.to_bytes().to_vec(), last });
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let serve = async {
        theirs.write_all(passed).await.expect("the pipe has room");
        theirs.shutdown().await.expect("nobody has closed it");
        let served = http1::Builder::new()
            .header_read_timeout(None)
            .half_close(true)
            .max_header_size(RULES.header_max + RULES.target_max + 128)
            .serve_connection(TokioIo::new(ours), service)
            .await;
        if let Err(error) = served {
            assert!(!error.is_parse(), "{error:?}: the parser refuses what the gate let through");
        }
    };
    RUNTIME.with(|runtime| LocalSet::new().block_on(runtime, serve));
    messages.take()
}

fn closes(connection: &[u8]) -> bool {
    connection.to_ascii_lowercase().windows(5).any(|it| it == b"close")
}

fn strictly_begun(passed: &[u8]) -> usize {
    passed.windows(4).filter(|it| *it == b"\r\n\r\n").count()
}

/// How RFC 9112 reads it, when nobody is lenient: whole messages only.
fn strictly(passed: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = passed;
    while let Some((message, after)) = message(rest) {
        messages.push(message);
        rest = after;
    }
    messages
}

fn message<'a>(bytes: &'a [u8]) -> Option<(Message, &'a [u8])> {
    let mut bytes = bytes;
    while let Some(after) = bytes.strip_prefix(b"\r\n") {
        bytes = after;
    }
    let (lines, mut rest) = section(bytes)?;
    let mut words = lines.first()?.split(|it| *it == b' ');
    let (method, target, version) = (words.next()?.to_vec(), words.next()?.to_vec(), words.next()?);
    assert!(version.starts_with(b"HTTP/1.") && words.next().is_none(), "{lines:?}");
    let fields = |name: &[u8]| -> Vec<&[u8]> {
        let split = |line: &&'a [u8]| {
            let colon = line.iter().position(|it| *it == b':').expect("a field has a colon");
            (&line[..colon], line[colon + 1..].trim_ascii())
        };
        lines[1..].iter().map(split).filter(|it| it.0.eq_ignore_ascii_case(name)).map(|it| it.1).collect()
    };
    let (lengths, codings) = (fields(b"content-length"), fields(b"transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "framed twice: {lines:?}");
    let mut body = Vec::new();
    if let Some(coding) = codings.first() {
        assert!(coding.eq_ignore_ascii_case(b"chunked"), "{coding:?}");
        (body, rest) = chunks(rest)?;
    } else if let Some(length) = lengths.first() {
        let length = usize::try_from(str::from_utf8(length).ok()?.parse::<u64>().expect("digits")).ok()?;
        body = rest.get(..length)?.to_vec();
        rest = &rest[length..];
    }
    let last = version == b"HTTP/1.0" || fields(b"connection").into_iter().any(closes);
    // As the parser's own type spells it.
    let target = Uri::try_from(target.as_slice()).map_or(target, |it| it.to_string().into_bytes());
    Some((Message { method, target, body, last }, rest))
}

/// Lines up to an empty one.
fn section(bytes: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    loop {
        let end = rest.windows(2).position(|it| it == b"\r\n")?;
        let (line, after) = (&rest[..end], &rest[end + 2..]);
        if line.is_empty() {
            return Some((lines, after));
        }
        assert!(line.iter().all(|it| *it == b'\t' || !it.is_ascii_control()), "{line:?} passed");
        lines.push(line);
        rest = after;
    }
}

fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut body, mut rest) = (Vec::new(), bytes);
    loop {
        let end = rest.windows(2).position(|it| it == b"\r\n")?;
        let size = rest[..end].split(|it| *it == b';').next()?;
        let digits = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
        assert!(digits, "{size:?} is no size of a chunk");
        let size = usize::from_str_radix(str::from_utf8(size).ok()?, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return section(rest).map(|(_, after)| (body, after));
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
}

fn snapshot() -> Snapshot {
    let loaded = config::load_text("m.toml".as_ref(), LIMITS, &[], &config::Capabilities::default());
    let loaded = loaded.expect("a good configuration");
    build(&loaded.config, 1, &Default::default(), Tls::rehearsal().terminator(&loaded.config))
        .expect("a snapshot of it")
}
