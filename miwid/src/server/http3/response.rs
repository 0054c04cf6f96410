//! An answer on its way out over a QUIC stream.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant, SystemTime},
};

use bytes::{BufMut, Bytes, BytesMut};
use h3::{error::Code, server::RequestStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};

use super::{
    qpack,
    quic::{self, Outlet, Stopped},
    request::strip_connection_specific,
};
use crate::{net::patience, server::finish::Tracked};

/// So much goes to the stream at once: what a client that takes nothing can keep for the time that it is given.
const PIECE: usize = 64 << 10;

type Sending = RequestStream<quic::Sending, Bytes>;

pub(super) async fn send(
    stream: &mut Sending,
    outlet: &Outlet,
    stopped: &mut Stopped,
    answer: Response<Tracked>,
    head: bool,
) -> io::Result<()> {
    let (mut parts, mut body) = answer.into_parts();
    // No body at all says nothing of how long the answer to a GET would be.
    let length = body.size_hint().exact().filter(|it| !head || *it > 0);
    complete(&mut parts.headers, parts.status, length);
    let bodyless = head || is_bodyless(parts.status);
    // A body that keeps us waiting does not keep the head waiting.
    let first = match bodyless {
        true => Poll::Ready(None),
        false => poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await,
    };
    let mut before = match qpack::head(parts.status, &parts.headers).filter(|_| goes_on(&first)) {
        Some(head) => head,
        None => {
            stream.send_response(Response::from_parts(parts, ())).await.map_err(io::Error::other)?;
            BytesMut::new()
        }
    };
    let mut first = Some(first);
    loop {
        let next = match first.take() {
            Some(Poll::Ready(next)) => next,
            // A body may be silent for as long as it likes, but not for nobody.
            Some(Poll::Pending) | None => {
                let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
                stopped.first(next).await.ok_or(io::ErrorKind::ConnectionAborted)?
            }
        };
        let Some(frame) = next else { break };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                // What was sent is not whole, and only a reset says so.
                stream.stop_stream(Code::H3_INTERNAL_ERROR);
                return Err(error);
            }
        };
        match frame.into_data() {
            Ok(data) => send_data(stream, outlet, &mut before, data).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    outlet.put(before.split().freeze());
                    stream.send_trailers(trailers).await.map_err(io::Error::other)?;
                }
            }
        }
    }
    outlet.put(before.freeze());
    stream.finish().await.map_err(io::Error::other)
}

/// Whether what follows a head is at hand, so that the head goes with it.
fn goes_on(first: &Poll<Option<io::Result<Frame<Bytes>>>>) -> bool {
    match first {
        Poll::Ready(Some(Ok(frame))) => frame.data_ref().is_none_or(|it| !it.is_empty()),
        Poll::Ready(_) => true,
        Poll::Pending => false,
    }
}

/// As DATA frames, behind what goes before them. Flow control lets through what the client takes. One that takes too little for
/// too long holds nothing any more.
async fn send_data(stream: &mut Sending, outlet: &Outlet, before: &mut BytesMut, mut data: Bytes) -> io::Result<()> {
    while !data.is_empty() {
        let piece = data.split_to(data.len().min(PIECE));
        let allowed = patience(piece.len());
        // RFC 9114, 7.2.1; the length in the four bytes of RFC 9000, 16.
        before.put_u8(0x00);
        before.put_u32(0x8000_0000 | piece.len() as u32);
        outlet.put(before.split().freeze());
        outlet.put(piece);
        match tokio::time::timeout(allowed, poll_fn(|cx| outlet.poll_flush(cx))).await {
            Ok(sent) => sent.map_err(io::Error::other)?,
            Err(_) => {
                stream.stop_stream(Code::H3_REQUEST_CANCELLED);
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
    Ok(())
}

fn is_bodyless(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// What hyper adds over TCP.
fn complete(headers: &mut HeaderMap, status: StatusCode, length: Option<u64>) {
    strip_connection_specific(headers);
    if let Some(length) = length.filter(|_| !is_bodyless(status) && !headers.contains_key(header::CONTENT_LENGTH)) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date());
    }
}

/// Formatted once a second per worker.
fn date() -> HeaderValue {
    const SECOND: Duration = Duration::from_secs(1);
    thread_local! {
        static NOW: RefCell<Option<(Instant, HeaderValue)>> = const { RefCell::new(None) };
    }
    NOW.with_borrow_mut(|now| match now {
        Some((made, date)) if made.elapsed() < SECOND => date.clone(),
        _ => {
            let text = httpdate::fmt_http_date(SystemTime::now());
            let date = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
            *now = Some((Instant::now(), date.clone()));
            date
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_get_what_hyper_would_add() {
        let mut headers = HeaderMap::from_iter([(header::CONNECTION, HeaderValue::from_static("close"))]);
        complete(&mut headers, StatusCode::OK, Some(5));
        assert_eq!(headers["content-length"], "5");
        assert!(headers.contains_key(header::DATE) && !headers.contains_key(header::CONNECTION));
        let mut headers = HeaderMap::new();
        complete(&mut headers, StatusCode::NOT_MODIFIED, Some(0));
        assert!(!headers.contains_key(header::CONTENT_LENGTH));
    }
}
