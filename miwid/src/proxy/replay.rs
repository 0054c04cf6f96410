//! The request body as it is lent to a connection that may hand the request back. A shared HTTP/2 connection can refuse
//! a request that it has begun to read (GOAWAY, REFUSED_STREAM); what was read of a short body until then is kept, so
//! that the request can be sent again as if nothing had been sent.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::exchange::Body;

/// A body longer than this is sent once. The bytes are shared with the connection, not copied.
const KEPT_MAX: usize = 64 * 1024;

/// What was read, for as long as it is little.
#[derive(Default)]
struct Kept {
    data: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    bytes: usize,
}

struct State {
    /// Read again before the rest.
    again: Kept,
    rest: Body,
    /// `None` when it became too much.
    kept: Option<Kept>,
}

/// The lender's side.
#[derive(Clone)]
pub(super) struct Loan(Rc<RefCell<State>>);

impl Loan {
    pub(super) fn of(body: Body) -> Self {
        Self(Rc::new(RefCell::new(State { again: Kept::default(), rest: body, kept: Some(Kept::default()) })))
    }

    pub(super) fn body(&self) -> Body {
        Body::stream(Lent(self.0.clone()))
    }

    /// The whole body again, and nothing for whoever had it. `None` when too much of it has been read.
    pub(super) fn reclaim(self) -> Option<Body> {
        let mut state = self.0.borrow_mut();
        let mut again = state.kept.take()?;
        let rest = std::mem::take(&mut state.rest);
        // What was to be read again and was not.
        again.data.extend(std::mem::take(&mut state.again.data));
        again.trailers = again.trailers.take().or_else(|| state.again.trailers.take());
        let renewed = State { again, rest, kept: Some(Kept::default()) };
        Some(Body::stream(Lent(Rc::new(RefCell::new(renewed)))))
    }
}

struct Lent(Rc<RefCell<State>>);

impl State {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(data) = self.again.data.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = self.again.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(kept) = &mut self.kept else { return };
        if let Some(data) = frame.data_ref() {
            kept.bytes += data.len();
            kept.data.push_back(data.clone());
        } else if let Some(trailers) = frame.trailers_ref() {
            kept.trailers = Some(trailers.clone());
        }
        if kept.bytes > KEPT_MAX {
            self.kept = None;
        }
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut state = self.0.borrow_mut();
        let frame = ready!(state.poll(cx));
        if let Some(Ok(frame)) = &frame {
            state.keep(frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.borrow();
        state.again.data.is_empty() && state.again.trailers.is_none() && state.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.0.borrow();
        let again: usize = state.again.data.iter().map(Bytes::len).sum();
        let rest = state.rest.size_hint();
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(rest + again as u64),
            None => rest,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn body(chunks: &'static [usize]) -> Body {
        let frames = chunks.iter().map(|it| Ok::<_, io::Error>(Frame::data(Bytes::from(vec![b'x'; *it]))));
        Body::stream(StreamBody::new(futures_util::stream::iter(frames)))
    }

    async fn length(body: Body) -> usize {
        body.collect().await.unwrap().to_bytes().len()
    }

    #[tokio::test]
    async fn what_was_read_comes_again() {
        for read in 0..4 {
            let mut whole = body(&[10, 20, 30]);
            // Twice, since a second connection may refuse it too.
            for _ in 0..2 {
                let loan = Loan::of(whole);
                let mut lent = loan.body();
                for _ in 0..read {
                    let _ = lent.frame().await;
                }
                whole = loan.reclaim().unwrap();
                assert!(lent.frame().await.is_none(), "nothing is left for the one who had it");
            }
            assert_eq!(length(whole).await, 60);
        }
    }

    #[tokio::test]
    async fn a_long_body_is_sent_once() {
        let loan = Loan::of(body(&[KEPT_MAX, 1, 1]));
        let mut lent = loan.body();
        let _ = (lent.frame().await, lent.frame().await);
        assert!(loan.reclaim().is_none());
    }
}
