//! What an upstream may send for an answer, chunks above all: framed once, the same however it arrives in pieces, and what
//! follows it never becomes the answer to somebody else.
//!
//! An input is a byte that chooses the method, then what the upstream sends.
#![no_main]

use http::{HeaderMap, Method, Request, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use libfuzzer_sys::{Corpus, fuzz_target};
use miwid::{proxy::fuzzing::strip_hop_by_hop, upstream::fuzzing::Line};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    runtime::Runtime,
    task::LocalSet,
};

/// More than an input has, so that nobody waits for room.
const PIPE_BYTES: usize = 1 << 20;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
}

/// An answer that came to its end.
#[derive(Debug, PartialEq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// The bytes behind it were taken for the answer to the next request.
    leaked: bool,
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((choice, sent)) = data.split_first() else { return Corpus::Reject };
    let method = if choice % 4 == 0 { Method::HEAD } else { Method::GET };
    let whole = ask(&method, sent, sent.len());
    if let Some(answer) = &whole {
        is_framed_once(answer, &method);
        assert!(!answer.leaked, "what follows an answer answers nobody");
        if let Some(body) = chunked(&method, sent) {
            assert_eq!(answer.body, body);
        }
    } else {
        assert!(chunked(&method, sent).is_none(), "a well-formed answer was refused");
    }
    let forgetful = |answer: Answer| Answer { leaked: false, ..answer };
    let whole = whole.map(forgetful);
    for pieces in [1, usize::from(choice / 4) + 2] {
        assert_eq!(ask(&method, sent, pieces).map(forgetful), whole, "in pieces of {pieces}");
    }
    Corpus::Keep
});

fn is_framed_once(answer: &Answer, method: &Method) {
    let mut headers = answer.headers.clone();
    strip_hop_by_hop(&mut headers);
    for name in ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"] {
        assert!(!headers.contains_key(name), "{name} went on");
    }
    let mut again = headers.clone();
    strip_hop_by_hop(&mut again);
    assert_eq!(again, headers);
    let bodiless = *method == Method::HEAD || matches!(answer.status.as_u16(), 100..200 | 204 | 304);
    assert!(!bodiless || answer.body.is_empty(), "{answer:?}");
    let lengths: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().collect();
    assert!(lengths.len() <= 1, "{lengths:?}");
    if let Some(length) = lengths.first()
        && !bodiless
    {
        assert_eq!(length.as_bytes(), answer.body.len().to_string().as_bytes().trim_ascii(), "{answer:?}");
    }
}

/// The whole answer, if there is one.
fn ask(method: &Method, sent: &[u8], pieces: usize) -> Option<Answer> {
    let (ours, theirs) = duplex(PIPE_BYTES);
    let upstream = answer(theirs, sent.to_vec(), pieces.max(1));
    let exchange = async {
        tokio::task::spawn_local(upstream);
        read(&Line::over(ours), method).await
    };
    RUNTIME.with(|runtime| LocalSet::new().block_on(runtime, exchange))
}

fn request(method: &Method) -> Parts {
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("a"));
    request.into_parts().0
}

/// Waits for the request, as a server does, then sends piece by piece and closes.
async fn answer(mut theirs: DuplexStream, sent: Vec<u8>, pieces: usize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match theirs.read_buf(&mut head).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    for piece in sent.chunks(pieces) {
        if theirs.write_all(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    let _ = theirs.shutdown().await;
    // The next request is read, too, or it could not be told from one that was never sent.
    let _ = theirs.read_to_end(&mut head).await;
}

async fn read(line: &Line<DuplexStream>, method: &Method) -> Option<Answer> {
    let (head, incoming) = line.ask(&request(method)).await?.into_parts();
    let collected = incoming.collect().await.ok()?;
    let trailers = collected.trailers().cloned();
    let body = collected.to_bytes().to_vec();
    let leaked = line.is_free() && line.ask(&request(&Method::GET)).await.is_some();
    Some(Answer { status: head.status, headers: head.headers, body, trailers, leaked })
}

/// The body of an answer that is chunked by the letter of RFC 9112 and says nothing else about its length.
fn chunked(method: &Method, sent: &[u8]) -> Option<Vec<u8>> {
    let mut rest = sent.strip_prefix(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|it| it == b"\r\n")?;
        let digits = str::from_utf8(&rest[..end]).ok()?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
            return None;
        }
        let length = usize::from_str_radix(digits, 16).ok()?;
        rest = &rest[end + 2..];
        if length == 0 {
            let ends = rest.starts_with(b"\r\n");
            return ends.then(|| if *method == Method::HEAD { Vec::new() } else { body });
        }
        let chunk = rest.get(..length)?;
        rest = rest[length..].strip_prefix(b"\r\n")?;
        body.extend_from_slice(chunk);
    }
}
