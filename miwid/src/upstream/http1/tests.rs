//! Whole exchanges on streams that do as they are told.

#![allow(clippy::unwrap_used)]

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{Future as _, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::coop::consume_budget,
};

use super::{Fault, Incoming, Shared, Wire, send};
use crate::{exchange::Body, net::Desk};

const DEADLINE: Duration = Duration::from_secs(20);

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async { tokio::time::timeout(DEADLINE, test).await.expect("the test came to its end") })
}

fn wire<S>(stream: S) -> Shared<S> {
    Rc::new(RefCell::new(Wire::new(stream)))
}

fn head(method: Method, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().method(method).uri("/x").header("host", "a");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// A body whose frames come through a channel.
fn fed() -> (mpsc::UnboundedSender<io::Result<Bytes>>, Body) {
    let (feed, mut frames) = mpsc::unbounded_channel::<io::Result<Bytes>>();
    let frames = futures_util::stream::poll_fn(move |cx| frames.poll_recv(cx));
    let frames = futures_util::StreamExt::map(frames, |it| it.map(Frame::data));
    (feed, Body::stream(StreamBody::new(frames)))
}

async fn heard(upstream: &mut DuplexStream, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    upstream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
}

/// Says the pieces one after the other, then nothing more; remembers each write.
struct Scripted {
    pieces: VecDeque<Vec<u8>>,
    writes: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Scripted {
    fn new(sent: &[u8], pieces: usize) -> Self {
        Self { pieces: sent.chunks(pieces.max(1)).map(<[u8]>::to_vec).collect(), writes: Rc::default() }
    }
}

impl AsyncRead for Scripted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.pieces.pop_front() else { return Poll::Ready(Ok(())) };
        // As a socket does: sometimes there is nothing yet.
        if piece.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let rest = piece.split_off(piece.len().min(buffer.remaining()));
        buffer.put_slice(&piece);
        if !rest.is_empty() {
            self.pieces.push_front(rest);
        }
        self.pieces.push_front(Vec::new());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.borrow_mut().push(bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

type Answer = (StatusCode, HeaderMap, Vec<u8>, Option<HeaderMap>);

async fn whole<S: AsyncRead + Unpin>(response: Response<Incoming<S>>) -> io::Result<Answer> {
    let (head, incoming) = response.into_parts();
    let collected = incoming.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok((head.status, head.headers, collected.to_bytes().to_vec(), trailers))
}

/// What becomes of an answer that comes in pieces, and whether its connection is of use afterwards.
fn asked(sent: &[u8], pieces: usize, method: Method) -> Option<(Answer, bool)> {
    run(async {
        let wire = wire(Scripted::new(sent, pieces));
        let response = send(&wire, (&head(method, &[]), b""), Body::Empty, None).await.ok()?;
        let answer = whole(response).await.ok()?;
        let free = wire.borrow().is_free();
        Some((answer, free))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn chopping_changes_nothing(
        start in prop_oneof![
            Just("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Just("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Just("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
            Just("HTTP/1.1 200 OK\r\n\r\n"),
        ],
        parts in proptest::collection::vec(
            prop_oneof![Just("2\r\nab\r\n"), Just("3;x\r\nabc\r\n"), Just("0\r\n\r\n"), Just("0\r\nx: y\r\n\r\n"), Just("4\r\n"), Just("\n")],
            0..5,
        ),
        pieces in 1usize..40,
    ) {
        let sent = format!("{start}{}", parts.concat());
        let answer = |pieces| asked(sent.as_bytes(), pieces, Method::GET).map(|(answer, _)| answer);
        prop_assert_eq!(answer(pieces), answer(sent.len()));
    }
}

#[test]
fn a_connection_is_free_only_after_an_answer_that_ended_by_itself() {
    for (sent, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some(("ok", true))),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Some(("ok", true))),
        ("HTTP/1.1 204 No Content\r\n\r\n", Some(("", true))),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", Some(("ok", false))),
        ("HTTP/1.1 200 OK\r\n\r\nok", Some(("ok", false))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", Some(("ok", false))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", None),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2", None),
    ] {
        let answer = asked(sent.as_bytes(), usize::MAX, Method::GET);
        let answer = answer.map(|((_, _, body, _), free)| (String::from_utf8(body).unwrap(), free));
        assert_eq!(answer.as_ref().map(|(body, free)| (body.as_str(), *free)), expected, "{sent}");
    }
    let head = asked(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", usize::MAX, Method::HEAD).unwrap();
    assert!(head.1, "the length of a HEAD's answer is nobody's body");
}

#[test]
fn an_answer_that_nobody_reads_to_its_end_costs_the_connection() {
    run(async {
        let wire = wire(Scripted::new(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", usize::MAX));
        let response = send(&wire, (&head(Method::GET, &[]), b""), Body::Empty, None).await.unwrap();
        drop(response);
        assert!(wire.borrow().is_spent());
    });
}

#[test]
fn a_body_that_has_ended_leaves_the_connection_to_the_next_exchange() {
    run(async {
        let (ours, mut upstream) = duplex(1 << 10);
        let (wire, get) = (wire(ours), head(Method::GET, &[]));
        upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").await.unwrap();
        let mut first = send(&wire, (&get, b""), Body::Empty, None).await.unwrap().into_body();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").await.unwrap();
        let second = send(&wire, (&get, b""), Body::Empty, None).await.unwrap();
        assert!(first.frame().await.is_none());
        drop(first);
        assert!(wire.borrow().is_spent(), "the second answer is still to be read");
        upstream.write_all(b"two").await.unwrap();
        assert_eq!(whole(second).await.unwrap().2, b"two");
        assert!(wire.borrow().is_free());
    });
}

#[test]
fn a_head_and_a_short_body_are_one_write() {
    run(async {
        let scripted = Scripted::new(b"HTTP/1.1 204 No Content\r\n\r\n", usize::MAX);
        let writes = scripted.writes.clone();
        let wire = wire(scripted);
        let post = head(Method::POST, &[("content-length", "2")]);
        send(&wire, (&post, b""), Body::from("hi"), None).await.unwrap();
        assert_eq!(&*writes.borrow(), &[b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi".to_vec()]);
        assert!(wire.borrow().is_free());
    });
}

#[test]
fn a_request_goes_on_after_its_answer_has_begun_and_after_it_has_ended() {
    for said in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"] {
        run(async {
            let (ours, mut upstream) = duplex(1 << 16);
            let (wire, (feed, body)) = (wire(ours), fed());
            let post = head(Method::POST, &[]);
            let sending = send(&wire, (&post, b""), body, None);
            let hearing = async {
                heard(&mut upstream, "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
                upstream.write_all(said.as_bytes()).await.unwrap();
            };
            let (response, ()) = tokio::join!(sending, hearing);
            let mut incoming = response.unwrap().into_body();
            feed.send(Ok(Bytes::from_static(b"more"))).unwrap();
            heard(&mut upstream, "4\r\nmore\r\n").await;
            if !said.ends_with("ok") {
                upstream.write_all(b"ok").await.unwrap();
            }
            assert_eq!(incoming.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
            drop(incoming);
            assert!(!wire.borrow().is_free(), "its request has not ended");
            drop(feed);
            heard(&mut upstream, "0\r\n\r\n").await;
            while !wire.borrow().is_free() {
                tokio::task::yield_now().await;
            }
        });
    }
}

#[test]
fn a_request_that_breaks_off_breaks_its_answer() {
    run(async {
        let (ours, mut upstream) = duplex(1 << 16);
        let (wire, (feed, body)) = (wire(ours), fed());
        upstream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegun").await.unwrap();
        let response = send(&wire, (&head(Method::POST, &[]), b""), body, None).await.unwrap();
        let mut incoming = response.into_body();
        assert_eq!(incoming.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");
        feed.send(Err(io::ErrorKind::TimedOut.into())).unwrap();
        assert!(incoming.frame().await.unwrap().is_err(), "by its closing it would look whole");
        assert!(wire.borrow().is_spent());
    });
}

#[test]
fn whoever_leaves_during_an_answer_ends_the_request_too() {
    run(async {
        let (ours, mut upstream) = duplex(1 << 16);
        let (wire, (feed, body)) = (wire(ours), fed());
        upstream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let response = send(&wire, (&head(Method::POST, &[]), b""), body, None).await.unwrap();
        drop((response, wire));
        feed.closed().await;
        upstream.read_to_end(&mut Vec::new()).await.unwrap();
    });
}

#[test]
fn a_body_of_another_length_than_it_says_is_not_sent_as_whole() {
    for (length, body) in [("3", Body::from("hi")), ("1", Body::from("hi")), ("1", Body::Empty)] {
        let wire = wire(Scripted::new(b"HTTP/1.1 204 No Content\r\n\r\n", usize::MAX));
        let post = head(Method::POST, &[("content-length", length)]);
        let answer = run(send(&wire, (&post, b""), body, None));
        assert!(matches!(answer, Err(Fault::Body(_))), "{length}");
        assert!(wire.borrow().is_spent());
    }
}

#[test]
fn what_an_upstream_says_before_it_closes_is_heard() {
    run(async {
        let (ours, mut upstream) = duplex(64);
        let wire = wire(ours);
        upstream.write_all(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        drop(upstream);
        let body = Body::from("x".repeat(100_000));
        let response = send(&wire, (&head(Method::POST, &[]), b""), body, None).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(wire.borrow().is_spent());
    });
}

#[test]
fn an_upgrade_leaves_the_stream_and_what_came_behind_the_answer() {
    run(async {
        let (ours, mut upstream) = duplex(1 << 10);
        let wire = wire(ours);
        upstream.write_all(b"HTTP/1.1 101 X\r\nUpgrade: y\r\n\r\nearly").await.unwrap();
        let response = send(&wire, (&head(Method::GET, &[("upgrade", "y")]), b""), Body::Empty, None).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        drop(response);
        let (unread, mut stream) = Rc::into_inner(wire).unwrap().into_inner().into_upgraded().unwrap();
        assert_eq!(unread, "early");
        stream.write_all(b"late").await.unwrap();
        heard(&mut upstream, "GET /x HTTP/1.1\r\nhost: a\r\nupgrade: y\r\n\r\nlate").await;
    });
}

#[test]
fn informational_answers_are_no_answers() {
    let sent = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    run(async {
        let wire = wire(Scripted::new(sent, 7));
        let response = send(&wire, (&head(Method::GET, &[]), b""), Body::Empty, Some(&Desk::default())).await.unwrap();
        assert_eq!((response.status(), response.headers().contains_key("link")), (StatusCode::OK, false));
    });
}

/// A task may do so much at a time; after that, every socket seems to have nothing to say.
#[test]
fn what_has_come_is_noticed_by_a_task_that_has_done_its_share() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (stream, (mut upstream, _)) = (stream.unwrap(), accepted.unwrap());
        let mut wire = Wire::new(stream);
        assert!(wire.is_quiet());
        upstream.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        wire.stream.readable().await.unwrap();
        poll_fn(|cx| {
            while pin!(consume_budget()).poll(cx).is_ready() {}
            Poll::Ready(())
        })
        .await;
        assert!(!wire.is_quiet());
    });
}
