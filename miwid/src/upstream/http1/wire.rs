//! One HTTP/1.1 connection to an endpoint. It knows which halves of an exchange are still under way on it; only one that
//! carries nothing, has nothing unread and is still open may carry another.

use std::{
    cell::RefCell,
    future::{Future as _, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BufMut, Bytes};
use http::Method;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    task::unconstrained,
};

use super::{
    buffers::{Buffer, LARGE, SMALL},
    exchange::Fault,
    head::{Framing, Head, Heads},
    lines::{self, PlainHead},
};
use crate::{
    net::{Desk, Pipe, Staged},
    upstream::stream::Splice,
};

/// Held by the exchange, by the body of its answer, and by a rest of its request that is still being sent.
pub(in crate::upstream) type Shared<S> = Rc<RefCell<Wire<S>>>;

/// Most heads are shorter.
const HEAD_LIKELY: usize = 2 << 10;

pub(in crate::upstream) struct Wire<S> {
    pub(super) stream: S,
    pub(super) unread: Buffer,
    /// What is read at once where nothing says how much there is: much, where there was much the last time.
    usual: usize,
    /// The last answer went past our memory, and so may the next: its head is all that should be read.
    is_bypassed: bool,
    heads: Heads,
    /// A request is not yet sent to its end.
    pub(super) sending: bool,
    /// An answer is not yet read to its end.
    pub(super) answering: bool,
    /// It will not carry another exchange.
    pub(super) closing: bool,
    /// Bytes sent in its life: whether a request that is still being sent moves.
    pub(super) written: u64,
    /// The request broke off while its answer was on its way.
    pub(super) broken: bool,
    /// Who reads the answer then.
    pub(super) reader: Option<Waker>,
}

impl<S> Wire<S> {
    pub(in crate::upstream) fn new(stream: S) -> Self {
        Self {
            stream,
            unread: Buffer::default(),
            usual: SMALL,
            is_bypassed: false,
            heads: Heads::default(),
            sending: false,
            answering: false,
            closing: false,
            written: 0,
            broken: false,
            reader: None,
        }
    }

    /// It carries nothing now, and may carry an exchange.
    pub(in crate::upstream) fn is_free(&self) -> bool {
        !self.sending && !self.is_spent()
    }

    /// It will never be free (again).
    pub(in crate::upstream) fn is_spent(&self) -> bool {
        self.closing || self.answering || !self.unread.bytes.is_empty()
    }

    /// What an upgrade leaves: the stream, and what came behind the answer.
    pub(in crate::upstream) fn into_upgraded(mut self) -> Option<(Bytes, S)> {
        let unread = self.unread.bytes.split().freeze();
        (!self.sending).then_some((unread, self.stream))
    }

    /// From now on it carries an exchange.
    pub(in crate::upstream) fn begin(&mut self) {
        (self.sending, self.answering) = (true, true);
        self.heads = Heads::default();
    }

    /// A body begins; the next answer is likely to be as long.
    pub(super) fn expect(&mut self, length: Option<u64>) {
        self.usual = if length.is_some_and(|it| it > SMALL as u64) { LARGE } else { SMALL };
        self.is_bypassed = false;
    }

    /// How much to read at once of a body with so much left.
    pub(super) fn size(&self, left: Option<u64>) -> usize {
        left.map_or(self.usual, |it| if it > SMALL as u64 { LARGE } else { SMALL })
    }

    /// The answer has been read to its end.
    pub(super) fn answered(&mut self) {
        self.answering = false;
        self.reader = None;
        if self.unread.bytes.is_empty() {
            self.unread.release();
        }
    }

    /// The request cannot be completed: neither can what is read of the answer be trusted to be about all of it.
    pub(super) fn break_off(&mut self) {
        (self.closing, self.broken) = (true, true);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Between two exchanges: the other end has neither closed it nor said anything. Costs no look at the socket as long
    /// as nothing has come.
    pub(in crate::upstream) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        // To a task that has done its share, a socket would seem to have nothing.
        let look = unconstrained(poll_fn(|cx| Pin::new(&mut self.stream).poll_read(cx, &mut buffer)));
        pin!(look).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Reads more; 0: the end. While there is nothing to read it holds no memory for it.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<usize>> {
        self.poll_fill_up_to(cx, size, usize::MAX)
    }

    fn poll_fill_up_to(&mut self, cx: &mut Context<'_>, size: usize, most: usize) -> Poll<io::Result<usize>> {
        self.unread.make_room(size);
        let mut room = (&mut self.unread.bytes).limit(most);
        let count = pin!(self.stream.read_buf(&mut room)).poll(cx);
        if self.unread.bytes.len() == self.unread.bytes.capacity() {
            self.usual = LARGE;
        }
        if self.unread.bytes.is_empty() {
            self.unread.release();
        }
        count
    }

    /// The head of the answer. What is said before it is passed on as it comes.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        interim: Option<&Desk>,
    ) -> Poll<Result<Head, Fault>> {
        loop {
            while !self.unread.bytes.is_empty() {
                let Some(head) = self.heads.next(&mut self.unread.bytes, method)? else { break };
                if !head.is_interim() {
                    return Poll::Ready(Ok(head));
                }
                if let Some(desk) = interim {
                    desk.inform(head.status, &head.headers);
                }
            }
            if ready!(self.poll_fill(cx, self.usual)).map_err(Fault::Io)? == 0 {
                Heads::cut(&self.unread.bytes)?;
                return Poll::Ready(Err(Fault::Closed));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    fn poll_request(&mut self, cx: &mut Context<'_>, request: &mut Staged) -> Poll<io::Result<()>> {
        while !request.is_empty() {
            self.written += ready!(request.poll_write(cx, &mut self.stream))? as u64;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Sends a request that is written out, and shows the head of its answer to `take`, if that head is plain. `None`: it was
    /// not taken, and is still to be read.
    pub(super) fn poll_lines(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Staged,
        take: impl FnOnce(&PlainHead<'_>) -> bool,
    ) -> Poll<io::Result<Option<Framing>>> {
        if self.sending {
            let sent = ready!(self.poll_request(cx, request));
            self.sending = false;
            // It may have answered before it closed.
            self.closing |= sent.is_err();
        }
        let most = if self.is_bypassed { HEAD_LIKELY } else { usize::MAX };
        if self.unread.bytes.is_empty() && ready!(self.poll_fill_up_to(cx, self.usual, most))? == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let Some((length, framing)) = lines::read(&self.unread.bytes, take) else { return Poll::Ready(Ok(None)) };
        self.unread.bytes.advance(length);
        Poll::Ready(Ok(Some(framing)))
    }
}

impl<S: Splice> Wire<S> {
    /// Past our memory, as long as nothing has been read that comes before.
    pub(super) fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe, limit: u64) -> Poll<io::Result<usize>> {
        (self.usual, self.is_bypassed) = (SMALL, true);
        self.stream.poll_splice(cx, pipe, limit)
    }
}
