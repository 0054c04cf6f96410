//! quinn as `h3` wants to see a transport. Two things are ours: whoever accepts a request also gets word of a client that no
//! longer wants the answer, which otherwise only the next write would find out; and may send frames past `h3`, which would
//! copy their data.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::{
    FutureExt, StreamExt,
    future::LocalBoxFuture,
    stream::{self, LocalBoxStream},
};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

/// Where an answer goes out: `h3` has it as well, for what it frames itself.
#[derive(Clone)]
pub(super) struct Outlet(Rc<RefCell<Outgoing>>);

struct Outgoing {
    stream: quinn::SendStream,
    /// In this order.
    waiting: Vec<Bytes>,
}

impl Outlet {
    fn new(stream: quinn::SendStream) -> Self {
        Self(Rc::new(RefCell::new(Outgoing { stream, waiting: Vec::new() })))
    }

    /// Goes behind what is waiting: with what is flushed next, or with the end.
    pub(super) fn put(&self, bytes: Bytes) {
        self.0.borrow_mut().waiting.push(bytes);
    }

    /// Until the transport has taken everything.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        let Outgoing { stream, waiting } = &mut *self.0.borrow_mut();
        while waiting.iter().any(|it| !it.is_empty()) {
            // It keeps nothing from one call to the next.
            ready!(pin!(stream.write_chunks(waiting)).poll(cx))?;
        }
        waiting.clear();
        Poll::Ready(Ok(()))
    }

    /// Resolves when the client has no use for the answer any more. Pending for ever when it took all of it.
    fn stopped(&self) -> LocalBoxFuture<'static, ()> {
        let stopped = self.0.borrow().stream.stopped();
        async move {
            if let Ok(None) = stopped.await {
                std::future::pending().await
            }
        }
        .boxed_local()
    }
}

/// Hears of a client that stops its request.
pub(super) struct Stopped {
    outlet: Outlet,
    /// Made when there is something to wait for.
    stopped: Option<LocalBoxFuture<'static, ()>>,
}

impl Stopped {
    pub(super) fn of(outlet: Outlet) -> Self {
        Self { outlet, stopped: None }
    }

    /// What `work` yields; `None`: the client stopped it first. Work that goes on by itself pays nothing for this.
    pub(super) async fn first<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => {
                let stopped = self.stopped.get_or_insert_with(|| self.outlet.stopped());
                stopped.as_mut().poll(cx).map(|()| None)
            }
        })
        .await
    }
}

/// What is known of a request beside its stream.
pub(super) struct Circumstances {
    pub(super) outlet: Outlet,
    /// It came before the handshake was over.
    pub(super) is_early: bool,
}

/// Those of the request that was accepted last.
pub(super) type Last = Rc<Cell<Option<Circumstances>>>;

type Accepting<T> = LocalBoxStream<'static, Result<T, ConnectionError>>;

pub(super) struct Quic {
    opener: Opener,
    requests: Accepting<(quinn::SendStream, quinn::RecvStream)>,
    others: Accepting<quinn::RecvStream>,
    last: Last,
}

impl Quic {
    pub(super) fn new(connection: quinn::Connection, last: Last) -> Self {
        let requests = stream::unfold(connection.clone(), |it| async { Some((it.accept_bi().await, it)) });
        let others = stream::unfold(connection.clone(), |it| async { Some((it.accept_uni().await, it)) });
        let (requests, others) = (requests.boxed_local(), others.boxed_local());
        Self { opener: Opener { connection, opening: None }, requests, others, last }
    }
}

impl quic::Connection<Bytes> for Quic {
    type RecvStream = Receiving;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receiving, ConnectionErrorIncoming>> {
        // The stream never ends: a connection that does yields its error for ever.
        let accepted = ready!(self.others.poll_next_unpin(cx)).unwrap_or(Err(ConnectionError::LocallyClosed));
        Poll::Ready(accepted.map(Receiving).map_err(lost))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request, ConnectionErrorIncoming>> {
        let accepted = ready!(self.requests.poll_next_unpin(cx)).unwrap_or(Err(ConnectionError::LocallyClosed));
        let (sending, receiving) = accepted.map_err(lost)?;
        let is_early = receiving.is_0rtt();
        let sending = Sending::new(sending);
        self.last.set(Some(Circumstances { outlet: sending.outlet.clone(), is_early }));
        Poll::Ready(Ok(Request { sending, receiving: Receiving(receiving) }))
    }

    fn opener(&self) -> Opener {
        Opener { connection: self.opener.connection.clone(), opening: None }
    }
}

impl quic::OpenStreams<Bytes> for Quic {
    type BidiStream = Request;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens the streams of a server: its control stream and those of QPACK.
pub(super) struct Opener {
    connection: quinn::Connection,
    opening: Option<LocalBoxFuture<'static, Result<quinn::SendStream, ConnectionError>>>,
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Request;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        Poll::Ready(Err(StreamErrorIncoming::Unknown("a server asks nothing".into())))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sending, StreamErrorIncoming>> {
        let opening = self.opening.get_or_insert_with(|| {
            let connection = self.connection.clone();
            async move { connection.open_uni().await }.boxed_local()
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        Poll::Ready(opened.map(Sending::new).map_err(|error| of_connection(lost(error))))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(number(code.value()), reason);
    }
}

/// Both directions of a request.
pub(super) struct Request {
    sending: Sending,
    receiving: Receiving,
}

impl quic::BidiStream<Bytes> for Request {
    type SendStream = Sending;
    type RecvStream = Receiving;

    fn split(self) -> (Sending, Receiving) {
        (self.sending, self.receiving)
    }
}

impl quic::RecvStream for Request {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receiving.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.receiving.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.receiving.recv_id()
    }
}

impl quic::SendStream<Bytes> for Request {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.sending.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.sending.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.sending.send_id()
    }
}

pub(super) struct Receiving(quinn::RecvStream);

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        // It keeps nothing from one call to the next.
        let chunk = ready!(pin!(self.0.read_chunk(usize::MAX, true)).poll(cx));
        Poll::Ready(chunk.map(|it| it.map(|it| it.bytes)).map_err(unread))
    }

    fn stop_sending(&mut self, code: u64) {
        // It fails when there is nothing left to stop.
        let _ = self.0.stop(number(code));
    }

    fn recv_id(&self) -> StreamId {
        id(self.0.id())
    }
}

pub(super) struct Sending {
    id: StreamId,
    outlet: Outlet,
}

impl Sending {
    fn new(stream: quinn::SendStream) -> Self {
        Self { id: id(stream.id()), outlet: Outlet::new(stream) }
    }
}

impl quic::SendStream<Bytes> for Sending {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.outlet.poll_flush(cx).map_err(unwritten)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        let mut data = data.into();
        self.outlet.put(data.copy_to_bytes(data.remaining()));
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        let finished = self.outlet.0.borrow_mut().stream.finish();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(error.into())))
    }

    fn reset(&mut self, code: u64) {
        // It fails when it was reset or finished before.
        let _ = self.outlet.0.borrow_mut().stream.reset(number(code));
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

fn id(id: quinn::StreamId) -> StreamId {
    u64::from(id).try_into().expect("both are RFC 9000's numbers")
}

fn number(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn of_connection(connection_error: ConnectionErrorIncoming) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error }
}

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn unread(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        ReadError::ConnectionLost(error) => of_connection(lost(error)),
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}

fn unwritten(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => of_connection(lost(error)),
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}
