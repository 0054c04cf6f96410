//! A request body that comes over a QUIC stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::server::RequestStream;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use super::quic;
use crate::net::content_length;

pub(super) type Receiving = RequestStream<quic::Receiving, Bytes>;

pub(super) struct StreamBody {
    stream: Receiving,
    /// What the first look found.
    first: Option<Bytes>,
    /// Of what `Content-Length` promised, still to come.
    left: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Ended,
}

impl StreamBody {
    /// A request without a body mostly ends together with its head: one look tells, so that nobody downstream has to
    /// frame a body that is none.
    pub(super) async fn begin(stream: Receiving, headers: &HeaderMap) -> io::Result<Self> {
        let left = headers
            .get(header::CONTENT_LENGTH)
            .map(|it| content_length(it.as_bytes()).ok_or_else(|| io::Error::other("not a Content-Length")));
        let mut body = Self { stream, first: None, left: left.transpose()?, state: State::Data };
        let look = std::future::poll_fn(|cx| Poll::Ready(body.poll_data(cx))).await;
        match look {
            Poll::Ready(Ok(Some(data))) => body.first = Some(data),
            Poll::Ready(Ok(None)) => body.state = State::Trailers,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {}
        }
        if body.state == State::Trailers {
            let trailers = std::future::poll_fn(|cx| Poll::Ready(body.stream.poll_recv_trailers(cx))).await;
            if let Poll::Ready(Ok(None)) = trailers {
                body.state = State::Ended;
            }
        }
        Ok(body)
    }

    /// Nothing came of it, and nothing will.
    pub(super) fn has_ended(&self) -> bool {
        self.first.is_none() && self.state == State::Ended
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let data = ready!(self.stream.poll_recv_data(cx)).map_err(io::Error::other)?;
        let data = data.map(|mut it| it.copy_to_bytes(it.remaining()));
        let received = data.as_ref().map_or(0, Bytes::len) as u64;
        match (self.left, &data) {
            (Some(left), Some(_)) if received > left => {
                return Poll::Ready(Err(io::Error::other("more than Content-Length says")));
            }
            (Some(1..), None) => return Poll::Ready(Err(io::Error::other("less than Content-Length says"))),
            (Some(left), _) => self.left = Some(left - received),
            (None, _) => {}
        }
        Poll::Ready(Ok(data))
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let me = &mut *self;
        if let Some(first) = me.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if me.state == State::Data {
            match ready!(me.poll_data(cx)) {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) => me.state = State::Trailers,
                Err(error) => {
                    me.state = State::Ended;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        if me.state == State::Ended {
            return Poll::Ready(None);
        }
        let trailers = ready!(me.stream.poll_recv_trailers(cx)).map_err(io::Error::other);
        me.state = State::Ended;
        Poll::Ready(trailers.transpose().map(|it| it.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && (self.state == State::Ended || (self.left == Some(0) && self.state == State::Data))
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        let first = self.first.as_ref().map_or(0, Bytes::len) as u64;
        self.left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + first))
    }
}
