//! The bytes of a `Session`: read into a buffer of the worker, written from one; what is left over is kept here, exactly, for
//! as long as it is left over.
//!
//! A reader and a writer may be two tasks. A stream below remembers one of them for each direction, so a reader writes only
//! while no writer waits, and a writer never reads.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{CipherSuite, CommonState, Error, ServerConfig, server::UnbufferedServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    held::Held,
    scratch,
    session::{Rest, Session, invalid},
};

/// The longest record that there may be (RFC 5246, 6.2.3), with its header.
const RECORD_MAX: usize = 5 + (16 << 10) + 2048;
/// What may be kept undecided: a handshake message in several records is one only when its last byte is there. rustls bounds
/// those that it has heard the length of; this bounds the others.
const INPUT_MAX: usize = u16::MAX as usize;
/// What is kept of a record that comes in little pieces grows by so much.
const GROWTH: usize = 4 << 10;
/// What a client does not take at once is copied, so that its stream keeps no more than that; of more than this, the worker's
/// buffer is kept as it is.
const COPIED_MAX: usize = 16 << 10;

pub struct TlsStream<S> {
    io: S,
    session: Session,
    /// What has come and is not decided yet.
    input: Vec<u8>,
    /// So much of it the session has seen, and found nothing whole in.
    shown: usize,
    /// Data that the reader had no room for; of one record, or of the first after the handshake.
    data: Held,
    /// Records that the stream below did not take yet.
    out: Held,
    writer_waits: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Shakes hands with the client that has said `hello`, to the end and with everything sent. The caller sets the deadline.
    pub(in super::super) async fn accept(io: S, config: Arc<ServerConfig>, hello: Vec<u8>) -> io::Result<Self> {
        let session = Session::new(config).map_err(invalid)?;
        let (data, out) = (Held::default(), Held::default());
        let mut stream = Self { io, session, input: hello, shown: 0, data, out, writer_waits: false };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// What its records are encrypted with, if nothing of the connection is here but its keys.
    pub(in super::super) fn at_rest(&self) -> Option<CipherSuite> {
        let holds = self.input.len() + self.data.bytes().len() + self.out.bytes().len();
        if holds > 0 || self.writer_waits { None } else { self.session.at_rest() }
    }

    pub(in super::super) fn io(&self) -> &S {
        &self.io
    }

    /// For whoever goes on with it, when it is at rest.
    pub(in super::super) fn into_parts(self) -> (S, UnbufferedServerConnection) {
        (self.io, self.session.into_connection())
    }

    /// What the handshake has settled.
    pub fn settled(&self) -> &CommonState {
        self.session.state()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let nowhere = &mut ReadBuf::new(&mut []);
        loop {
            if self.shown < self.input.len() {
                self.open_kept(nowhere);
            }
            let flushed = ready!(self.poll_flushed(cx));
            self.session.end()?;
            flushed?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.session.has_ended() || ready!(self.poll_fill(cx, nowhere))? == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")));
            }
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let count = self.data.bytes().len().min(buf.remaining());
        buf.put_slice(&self.data.bytes()[..count]);
        self.data.advance(count);
        self.data.release();
        loop {
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.session.has_ended() {
                return Poll::Ready(self.session.end());
            }
            if self.shown < self.input.len() {
                self.open_kept(buf);
            } else if ready!(self.poll_fill(cx, buf))? == 0 {
                self.session.cut();
            }
        }
    }

    /// Reads once and opens what has come, as far as there is room for it. The count is of bytes read; 0: it is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let mut room = scratch::reading();
        let kept = self.input.len();
        let at = if kept <= room.len() / 2 { kept } else { 0 };
        let end = room.len().min(at + buf.remaining() + RECORD_MAX);
        let mut read = ReadBuf::new(&mut room[at..end]);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut read);
        let count = read.filled().len();
        if polled.is_ready() && count > 0 {
            // Whichever is shorter goes to the other.
            if at == kept && count >= kept {
                room[..kept].copy_from_slice(&self.input);
                self.input = Vec::new();
                let done = self.open(&mut room[..kept + count], buf);
                self.input = room[done..kept + count].to_vec();
            } else {
                self.input.reserve_exact(if count > self.input.capacity() - kept { count.max(GROWTH) } else { 0 });
                self.input.extend_from_slice(&room[at..at + count]);
                self.open_kept(buf);
            }
        }
        scratch::has_read(room);
        polled.map_ok(|()| count)
    }

    fn open_kept(&mut self, buf: &mut ReadBuf<'_>) {
        let mut input = std::mem::take(&mut self.input);
        let done = self.open(&mut input, buf);
        self.input = if done == 0 { input } else { input[done..].to_vec() };
    }

    /// Opens records at the front of `input` as long as there is room for what is in them. What is left of it, by the count
    /// of what is not, the caller keeps as the input.
    fn open(&mut self, input: &mut [u8], buf: &mut ReadBuf<'_>) -> usize {
        let mut done = 0;
        loop {
            let (data, out) = (&mut self.data, &mut self.out);
            let (count, rest) = self.session.open(&mut input[done..], out, |bytes| {
                let (now, later) = bytes.split_at(bytes.len().min(buf.remaining()));
                buf.put_slice(now);
                data.push(later);
            });
            done += count;
            let left = input.len() - done;
            self.shown = if rest == Rest::Drained { left } else { 0 };
            if self.shown > INPUT_MAX {
                self.session.fail(Error::General("message buffer full".to_owned()));
            }
            if self.session.has_ended() {
                // Whatever comes behind that does not count.
                self.shown = 0;
                return input.len();
            }
            if rest == Rest::Drained || left == 0 || buf.remaining() == 0 {
                return done;
            }
        }
    }

    fn poll_sealed(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drained(cx))?;
        self.session.writable()?;
        if parts.iter().all(|it| it.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let mut room = scratch::writing();
        let sealed = self.session.seal(&mut self.input[..self.shown], parts, &mut room);
        let sent = poll_out(&mut self.io, cx, &mut room);
        // The data counts as written when it is sealed: it must not be sealed again.
        if room.bytes().len() > COPIED_MAX {
            self.out = room;
        } else {
            self.out.push(room.bytes());
            scratch::has_written(room);
        }
        if let Poll::Ready(Err(error)) = sent {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(sealed.map_err(invalid))
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.out.is_empty() {
            ready!(poll_out(&mut self.io, cx, &mut self.out))?;
            scratch::has_written(std::mem::take(&mut self.out));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drained(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.say_farewell(&mut self.input[..self.shown], &mut self.out);
        ready!(self.poll_drained(cx))?;
        match ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
            // Whoever has left needs no farewell.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            closed => Poll::Ready(closed),
        }
    }

    fn written<T>(&mut self, polled: Poll<T>) -> Poll<T> {
        self.writer_waits = polled.is_pending();
        polled
    }
}

fn poll_out<S: AsyncWrite + Unpin>(io: &mut S, cx: &mut Context<'_>, out: &mut Held) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        match ready!(Pin::new(&mut *io).poll_write(cx, out.bytes()))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => out.advance(count),
        }
    }
    Poll::Ready(Ok(()))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = this.poll_data(cx, buf);
        if this.session.may_owe() {
            this.session.answer(&mut this.input[..this.shown], &mut this.out);
        }
        if !this.out.is_empty() && !this.writer_waits {
            // Answers of the protocol. That they cannot be sent is for a writer to hear.
            let _ = this.poll_flushed(cx);
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = this.poll_sealed(cx, parts);
        this.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = this.poll_flushed(cx);
        this.written(polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = this.poll_closed(cx);
        this.written(polled)
    }
}

#[cfg(test)]
impl<S> TlsStream<S> {
    /// Bytes of all buffers of its own.
    pub(super) fn kept(&self) -> usize {
        self.input.capacity() + self.data.capacity() + self.out.capacity()
    }
}
