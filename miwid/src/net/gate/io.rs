//! The io between the HTTP/1.1 parser and the connection. A head that arrives in one piece passes in the parser's own
//! buffer; only pieces are kept here. A refused head is replaced by a harmless one, so that its answer takes the ordinary
//! way: in order behind the answers before it, with a record and with all headers.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use http::Method;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};
use tokio_util::io::poll_read_buf;

use super::{
    After, Desk, Flaw, Rules, Verdict,
    stream::{Gate, Step, Stop},
};

const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: _\r\nconnection: close\r\n\r\n";
/// An answer to HEAD has no body, whatever is wrong with the request.
const STAND_IN_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: _\r\nconnection: close\r\n\r\n";
/// How much a client may send ahead of the answer to its upgrade.
const AHEAD_MAX: usize = 16 * 1024;
/// Closing while the client still sends would reset the connection and take the answer from it: what comes is thrown away
/// for a while.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;

pub struct Gated<T> {
    io: T,
    gate: Gate,
    desk: Desk,
    /// Read and not handed over; the first `passed` bytes may be.
    held: BytesMut,
    passed: usize,
    stand_in: &'static [u8],
    end: Option<End>,
    linger: Option<Pin<Box<Sleep>>>,
    lingered: usize,
    /// An informational answer on its way out.
    interim: BytesMut,
    /// Everything that the parser's side wrote has been flushed: nothing is cut in two by what is written now.
    clean: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Refused,
    Broken,
}

impl<T> Gated<T> {
    pub fn new(io: T, rules: Rules, desk: Desk) -> Self {
        Self {
            io,
            gate: Gate::new(rules),
            desk,
            held: BytesMut::new(),
            passed: 0,
            stand_in: &[],
            end: None,
            linger: None,
            lingered: 0,
            interim: BytesMut::new(),
            clean: true,
        }
    }

    /// `None`: something has been read that was not handed over.
    pub fn into_inner(self) -> Option<T> {
        (self.held.is_empty() && self.stand_in.is_empty()).then_some(self.io)
    }

    /// Nothing is held, owed or expected but another head.
    fn is_quiet(&self) -> bool {
        self.end.is_none()
            && self.held.is_empty()
            && self.stand_in.is_empty()
            && self.interim.is_empty()
            && self.gate.is_within_head()
    }

    fn stopped(&mut self, step: Step) {
        self.desk.set_begun(self.gate.is_within_head() && self.held.len() > self.passed);
        match step.stop {
            None => {}
            Some(Stop::Refused(verdict)) => self.refuse(verdict),
            Some(Stop::Broken(flaw)) => {
                tracing::debug!(?flaw, "request body is malformed");
                self.held.truncate(self.passed);
                self.end = Some(End::Broken);
            }
        }
    }

    fn refuse(&mut self, verdict: Box<Verdict>) {
        self.stand_in = if verdict.method == Some(Method::HEAD) { STAND_IN_HEAD } else { STAND_IN };
        self.desk.refuse(self.gate.requests() + 1, verdict);
        self.desk.set_begun(false);
        self.held.truncate(self.passed);
        self.end = Some(End::Refused);
    }

    /// Judges what is held. Called again when the gate has changed its mind about it.
    fn judge_held(&mut self) {
        let step = self.gate.feed(&mut self.held[self.passed..]);
        self.passed += step.passed;
        self.stopped(step);
    }

    /// True when something was put into `buf`.
    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.passed > 0 {
            let n = self.passed.min(buf.remaining());
            buf.put_slice(&self.held[..n]);
            self.held.advance(n);
            self.passed -= n;
            if self.held.is_empty() {
                // An idle connection keeps no buffer.
                self.held = BytesMut::new();
            }
            return true;
        }
        if !self.stand_in.is_empty() {
            let n = self.stand_in.len().min(buf.remaining());
            buf.put_slice(&self.stand_in[..n]);
            self.stand_in = &self.stand_in[n..];
            return true;
        }
        false
    }
}

impl<T: AsyncRead + Unpin> Gated<T> {
    /// Straight into the reader's buffer; what must be held is taken out of it again.
    fn poll_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<Read>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() == before {
            return Poll::Ready(Ok(Read::End));
        }
        let fresh = &mut buf.filled_mut()[before..];
        let step = self.gate.feed(fresh);
        self.held.extend_from_slice(&fresh[step.passed..]);
        let passed = step.passed;
        buf.set_filled(before + passed);
        self.stopped(step);
        Poll::Ready(Ok(if passed > 0 { Read::Passed } else { Read::Held }))
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
        if self.gate.is_waiting() && self.held.len() >= AHEAD_MAX {
            return Poll::Pending;
        }
        if ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.held))? == 0 {
            return Poll::Ready(Ok(Read::End));
        }
        self.judge_held();
        Poll::Ready(Ok(Read::Held))
    }

    fn settle(&mut self, cx: &Context<'_>) {
        match self.desk.after(self.gate.requests(), cx.waker()) {
            None => return,
            Some(After::Tunnel) => self.gate.open(),
            Some(After::Http) => self.gate.resume(),
        }
        self.judge_held();
    }

    /// Reads and throws away until the client has closed its side, or it has been enough.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + LINGER)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut scratch = [0; 4096];
        while self.lingered < LINGER_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => self.lingered += buf.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

enum Read {
    /// Something is in the reader's buffer.
    Passed,
    /// Something is held, and perhaps may pass.
    Held,
    End,
}

impl<T: AsyncRead + Unpin> AsyncRead for Gated<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        loop {
            if me.hand_over(buf) {
                return Poll::Ready(Ok(()));
            }
            match me.end {
                // An end of file would abort the answer.
                Some(End::Refused) => return Poll::Pending,
                Some(End::Broken) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                None => {}
            }
            if me.desk.has_expired() && me.gate.is_within_head() {
                if me.held.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let (method, target) = super::line::guess(&me.held);
                me.refuse(Box::new(Verdict { flaw: Flaw::Slow, method, target }));
                continue;
            }
            if me.gate.is_waiting() {
                me.settle(cx);
            } else if !me.gate.is_open() {
                me.desk.listen(cx.waker());
            }
            if me.passed > 0 || me.end.is_some() {
                continue;
            }
            let through = me.held.is_empty() && !me.gate.is_waiting();
            let read = if through { me.poll_through(cx, buf) } else { me.poll_more(cx) };
            me.desk.set_quiet(read.is_pending() && me.is_quiet());
            match ready!(read)? {
                Read::Passed | Read::End => return Poll::Ready(Ok(())),
                Read::Held => {}
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> Gated<T> {
    /// Writes what has come for the client before its answer. What was told belongs to the request that is being answered,
    /// so it goes out before the first byte of that answer, or, when an answer before it is still under way, not at all.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // What the client does not take waits at the desk, which has a bound.
            if self.interim.is_empty() {
                let Some(interim) = self.desk.take_interim() else { return Poll::Ready(Ok(())) };
                if !self.clean || self.gate.is_open() {
                    return Poll::Ready(Ok(()));
                }
                self.interim.extend_from_slice(&interim);
            }
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.advance(written);
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gated<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.clean = false;
        self.desk.set_flushed(false);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    /// hyper flushes when it has nothing left to write, and whenever it is woken.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.gate.is_open() {
            self.desk.listen(cx.waker());
        }
        self.clean = true;
        ready!(self.poll_interim(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.desk.set_flushed(true);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.desk.is_parked() {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        if self.end.is_some() || self.gate.is_within_body() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.clean = false;
        self.desk.set_flushed(false);
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::{HeaderMap, StatusCode};

    use super::*;

    #[tokio::test]
    async fn what_the_client_does_not_take_waits_at_the_desk() {
        let (io, _client) = tokio::io::duplex(16);
        let desk = Desk::default();
        let rules = Rules { target_max: 40, header_max: 120, fields_max: 6 };
        let mut gated = Gated::new(io, rules, desk.clone());
        for _ in 0..2 {
            desk.inform(StatusCode::EARLY_HINTS, &HeaderMap::new());
            assert!(Pin::new(&mut gated).poll_flush(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert!(desk.take_interim().is_some(), "the second is here yet");
    }
}
