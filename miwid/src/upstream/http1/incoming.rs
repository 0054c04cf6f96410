//! The body of an answer, read from its socket when it is asked for. When it has ended, or when it is dropped, its
//! connection is judged: free for the next exchange, or of no use any more.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::{io::AsyncRead, sync::Notify, task::AbortHandle};

use super::{decoder::Decoder, head::Framing, wire::Shared};
use crate::{net::Pipe, upstream::stream::Splice};

pub(in crate::upstream) struct Incoming<S> {
    /// Given up with the last byte: what then happens on the connection is of another exchange.
    wire: Option<Shared<S>>,
    decoder: Decoder,
    /// The part of the request that is still being sent.
    rest: Option<Rest>,
}

/// Ends with the answer, unless the answer was whole: then it may go on.
pub(super) struct Rest {
    task: AbortHandle,
    answered: Rc<Notify>,
}

impl Rest {
    pub(super) fn new(task: AbortHandle, answered: Rc<Notify>) -> Self {
        Self { task, answered }
    }
}

impl<S> Incoming<S> {
    pub(super) fn new(wire: Shared<S>, framing: Framing, rest: Option<Rest>) -> Self {
        let decoder = Decoder::new(framing);
        wire.borrow_mut().expect(decoder.left());
        let mut incoming = Self { wire: Some(wire), decoder, rest };
        incoming.settle();
        incoming
    }

    /// As soon as the last byte has been taken, the connection is judged.
    fn settle(&mut self) {
        if !self.decoder.has_ended() {
            return;
        }
        let Some(wire) = self.wire.take() else { return };
        wire.borrow_mut().answered();
        if let Some(rest) = self.rest.take() {
            rest.answered.notify_one();
        }
    }
}

impl<S: AsyncRead + Unpin> Incoming<S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(wire) = &self.wire else { return Poll::Ready(None) };
        let wire = &mut *wire.borrow_mut();
        loop {
            if wire.broken {
                return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the request broke off"))));
            }
            match self.decoder.next(&mut wire.unread.bytes) {
                Err(_) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "the upstream's chunks are malformed");
                    return Poll::Ready(Some(Err(error)));
                }
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.decoder.has_ended() => return Poll::Ready(None),
                Ok(None) => {}
            }
            if self.rest.is_some() {
                wire.reader = Some(cx.waker().clone());
            }
            if ready!(wire.poll_fill(cx, wire.size(self.decoder.left())))? == 0 && !self.decoder.cut() {
                return Poll::Ready(Some(Err(cut_off())));
            }
        }
    }
}

impl<S: Splice> Incoming<S> {
    /// What is left to come, if the kernel can move it by itself: it is known how much that is, and none of it is here.
    pub(in crate::upstream) fn spliceable(&self) -> Option<u64> {
        let wire = self.wire.as_ref().filter(|_| self.rest.is_none())?.borrow();
        (wire.unread.bytes.is_empty() && wire.stream.is_spliceable()).then(|| self.decoder.length()).flatten()
    }

    /// Moves some of that to a pipe that is empty; Ready with how much.
    pub(in crate::upstream) fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        let (Some(wire), Some(limit)) = (&self.wire, self.decoder.length()) else { return Poll::Ready(Ok(0)) };
        let moved = ready!(wire.borrow_mut().poll_splice(cx, pipe, limit))?;
        if moved == 0 {
            return Poll::Ready(Err(cut_off()));
        }
        self.decoder.took(moved as u64);
        self.settle();
        Poll::Ready(Ok(moved))
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the upstream closed in the middle of its answer")
}

impl<S: AsyncRead + Unpin> http_body::Body for Incoming<S> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = ready!(self.poll_next(cx));
        self.settle();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }
}

impl<S> Drop for Incoming<S> {
    fn drop(&mut self) {
        // An answer that nobody reads to its end leaves bytes that nobody may take for the next one.
        if let Some(wire) = &self.wire {
            wire.borrow_mut().closing = true;
        }
        if let Some(rest) = self.rest.take() {
            rest.task.abort();
        }
    }
}
