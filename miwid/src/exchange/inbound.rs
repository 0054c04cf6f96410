//! A request body on its way in: counted, bounded by `max_request_size`, and with a deadline between chunks.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::LocalBody;
use crate::net::Desk;

/// Where a request body comes from, if there is one: a TCP connection by way of hyper, or a QUIC stream; or it has come.
pub enum Source {
    /// There is no body.
    Empty,
    /// All of it, and not nothing.
    Whole(Bytes),
    Hyper(Incoming),
    Stream(LocalBody),
}

impl From<Incoming> for Source {
    fn from(incoming: Incoming) -> Self {
        Self::Hyper(incoming)
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let frame = Frame::data(std::mem::take(bytes));
                *self = Self::Empty;
                Poll::Ready(Some(Ok(frame)))
            }
            Self::Hyper(incoming) => Pin::new(incoming).poll_frame(cx).map_err(io::Error::other),
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(_) => false,
            Self::Hyper(incoming) => incoming.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Hyper(incoming) => incoming.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// Why a request body ended early. Shared with whoever answers, since the body has been handed on by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    TooLarge,
    TooSlow,
    Broken,
}

/// What the body has seen so far; readable while (and after) somebody else drives the body.
#[derive(Clone, Debug, Default)]
pub struct Meter(Rc<MeterState>);

#[derive(Debug, Default)]
struct MeterState {
    bytes: Cell<u64>,
    cut: Cell<Option<Cut>>,
    ended: Cell<bool>,
}

impl Meter {
    pub fn bytes(&self) -> u64 {
        self.0.bytes.get()
    }

    pub fn cut(&self) -> Option<Cut> {
        self.0.cut.get()
    }

    /// The body was read to its end.
    pub fn ended(&self) -> bool {
        self.0.ended.get()
    }
}

pub struct Inbound {
    source: Source,
    meter: Meter,
    bytes_max: u64,
    chunk_timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// How long the client has kept us waiting, all in all; `waiting`: since when it does now.
    waited: Duration,
    waiting: Option<Instant>,
    interim: Option<Desk>,
}

/// Bytes a second. A client may keep us waiting for `request_timeout` in all, and a second longer for each `RATE_MIN` bytes
/// that it has sent. Time in which nobody asks for the body is not counted: a slow upstream is not the client's fault.
const RATE_MIN: u64 = 240;

impl Inbound {
    /// `bytes_max` 0 = no bound (streams that flow control bounds).
    pub fn new(source: impl Into<Source>, bytes_max: u64, chunk_timeout: Duration) -> Self {
        let (source, meter) = (source.into(), Meter::default());
        match &source {
            Source::Whole(bytes) => {
                meter.0.bytes.set(bytes.len() as u64);
                meter.0.ended.set(true);
            }
            source => meter.0.ended.set(source.is_end_stream()),
        }
        Self {
            source,
            meter,
            bytes_max,
            chunk_timeout,
            timer: None,
            waited: Duration::ZERO,
            waiting: None,
            interim: None,
        }
    }

    /// Where what an upstream says before its answer goes.
    pub fn with_interim(mut self, desk: Option<Desk>) -> Self {
        self.interim = desk;
        self
    }

    /// `None`: this client cannot be told.
    pub fn interim(&self) -> Option<Desk> {
        self.interim.clone()
    }

    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// The body of a call that may be silent for long, such as a gRPC stream.
    pub fn as_stream(&mut self, idle_timeout: Duration) {
        self.chunk_timeout = idle_timeout;
    }

    fn cut(&self, cut: Cut, kind: io::ErrorKind) -> io::Error {
        self.meter.0.cut.set(Some(cut));
        io::Error::from(kind)
    }

    /// Arms the timer only while the client keeps us waiting: a body that is there costs no timer.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = self.chunk_timeout.min(self.patience());
        self.waiting.get_or_insert_with(Instant::now);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx)
    }

    /// How much longer the client may keep us waiting. Streams without a bound on their bytes have none on their rate.
    fn patience(&self) -> Duration {
        if self.bytes_max == 0 {
            return Duration::MAX;
        }
        patience(self.chunk_timeout, self.meter.bytes(), self.waited)
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let me = &mut *self;
        if matches!(me.source, Source::Whole(_)) {
            // It was counted, and found short enough, when it came.
            return me.source.poll_frame(cx);
        }
        match me.source.poll_frame(cx) {
            Poll::Pending if me.poll_deadline(cx).is_ready() => {
                Poll::Ready(Some(Err(me.cut(Cut::TooSlow, io::ErrorKind::TimedOut))))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                me.meter.0.ended.set(true);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                me.meter.0.cut.set(Some(Cut::Broken));
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                me.timer = None;
                me.waited += me.waiting.take().map_or(Duration::ZERO, |it| it.elapsed());
                let total = me.meter.bytes() + frame.data_ref().map_or(0, Bytes::len) as u64;
                me.meter.0.bytes.set(total);
                if me.bytes_max > 0 && total > me.bytes_max {
                    return Poll::Ready(Some(Err(me.cut(Cut::TooLarge, io::ErrorKind::FileTooLarge))));
                }
                // Whoever drives the body may stop here, without asking for the end that it can see coming.
                me.meter.0.ended.set(me.source.is_end_stream());
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

/// What is left of a client's time, by what it has sent and how long it has kept us waiting for it.
fn patience(chunk_timeout: Duration, bytes: u64, waited: Duration) -> Duration {
    let earned = Duration::from_millis(bytes.saturating_mul(1000) / RATE_MIN);
    (chunk_timeout + earned).saturating_sub(waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_flows_earns_time_and_one_that_trickles_does_not() {
        let seconds = Duration::from_secs;
        let left = |bytes, waited| patience(seconds(30), bytes, seconds(waited));
        assert_eq!(left(0, 0), seconds(30));
        assert_eq!(left(10, 30), Duration::from_millis(41));
        assert_eq!(left(10, 31), Duration::ZERO);
        assert_eq!(left(240 * 60, 60), seconds(30));
        assert_eq!(patience(seconds(3), 0, seconds(0)), seconds(3));
    }
}
