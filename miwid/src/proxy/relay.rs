//! A response body on its way from an endpoint to a client. It holds what the exchange holds: the request stays counted
//! in, and its connection goes back to the pool only when the body was read to its end.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    exchange::Meter,
    net::Pipe,
    upstream::{Connection, InFlight, Incoming, Pools},
};

/// What an exchange gives back at its end.
pub(super) struct Lease {
    pub connection: Connection,
    /// Held for its drop alone.
    pub _in_flight: InFlight,
    pub pools: Rc<Pools>,
    pub idle_timeout: Duration,
    /// The request's body, when it had one: an answer may come before it was read to its end.
    pub meter: Option<Meter>,
}

impl Lease {
    fn end(self) {
        let whole = self.meter.as_ref().is_none_or(Meter::ended);
        if whole {
            self.pools.checkin(self.connection, self.idle_timeout);
        }
    }
}

/// The body that a client gets.
pub struct Relay {
    incoming: Incoming,
    lease: Option<Lease>,
    chunk_timeout: Duration,
    /// Armed by the first wait and then left alone: one that rings too early is set again.
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when the upstream keeps us waiting now.
    waiting: Option<Instant>,
    /// Ends a stream of events after its endpoint was withdrawn.
    closing: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Relay {
    pub(super) fn new(
        incoming: Incoming,
        lease: Lease,
        chunk_timeout: Duration,
        closing: Option<Pin<Box<dyn Future<Output = ()>>>>,
    ) -> Self {
        let mut relay = Self { incoming, lease: Some(lease), chunk_timeout, timer: None, waiting: None, closing };
        relay.settle();
        relay
    }

    /// A body of known length ends with its last bytes: nobody asks again to hear that there is no more.
    fn settle(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.end();
        }
    }

    /// What is left to come, if the kernel can move it by itself.
    pub fn spliceable(&self) -> Option<u64> {
        self.incoming.spliceable()
    }

    /// Moves some of that to a pipe that is empty; Ready with how much.
    pub fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        match self.incoming.poll_splice(cx, pipe) {
            Poll::Pending => self.poll_wait(cx).map(Err),
            Poll::Ready(Ok(moved)) => {
                self.waiting = None;
                self.settle();
                Poll::Ready(Ok(moved))
            }
            Poll::Ready(Err(error)) => {
                self.lease = None;
                Poll::Ready(Err(error))
            }
        }
    }

    /// Resolves when it has been waited for too long.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(closing) = &mut self.closing
            && closing.as_mut().poll(cx).is_ready()
        {
            self.closing = None;
            self.lease = None;
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, "the app is being replaced"));
        }
        let deadline = *self.waiting.get_or_insert_with(Instant::now) + self.chunk_timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        while timer.deadline() < deadline {
            ready!(timer.as_mut().poll(cx));
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        self.lease = None;
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the upstream sent nothing for too long"))
    }
}

impl http_body::Body for Relay {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let me = &mut *self;
        match Pin::new(&mut me.incoming).poll_frame(cx) {
            Poll::Pending => me.poll_wait(cx).map(|it| Some(Err(it))),
            Poll::Ready(None) => {
                if let Some(lease) = me.lease.take() {
                    lease.end();
                }
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                me.lease = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                me.waiting = None;
                me.settle();
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
