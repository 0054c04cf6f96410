//! quinn as `h3` wants to see a transport. Two things are ours: whoever accepts a request also gets word of a client that no
//! longer wants the answer, which otherwise only the next write would find out; and may put a frame before what `h3` sends.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
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
use tokio_util::sync::ReusableBoxFuture;

/// Resolves when the client has no use for the answer any more. Pending for ever when it took all of it.
pub(super) struct Stopped(LocalBoxFuture<'static, ()>);

impl Stopped {
    fn of(stream: &quinn::SendStream) -> Self {
        let stopped = stream.stopped();
        let stopped = async move {
            if let Ok(None) = stopped.await {
                std::future::pending().await
            }
        };
        Self(stopped.boxed_local())
    }

    /// What `work` yields; `None`: the client stopped it first. Work that goes on by itself pays nothing for this.
    pub(super) async fn first<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.0.as_mut().poll(cx).map(|()| None),
        })
        .await
    }
}

/// Bytes that go before the next that `h3` sends on a stream, or before its end.
pub(super) type Ahead = Rc<Cell<Bytes>>;

/// What is known of a request beside its stream.
pub(super) struct Circumstances {
    pub(super) stopped: Stopped,
    pub(super) ahead: Ahead,
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
        Poll::Ready(accepted.map(Receiving::new).map_err(lost))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request, ConnectionErrorIncoming>> {
        let accepted = ready!(self.requests.poll_next_unpin(cx)).unwrap_or(Err(ConnectionError::LocallyClosed));
        let (sending, receiving) = accepted.map_err(lost)?;
        let is_early = receiving.is_0rtt();
        let (stopped, sending) = (Stopped::of(&sending), Sending::new(sending));
        self.last.set(Some(Circumstances { stopped, ahead: sending.ahead.clone(), is_early }));
        Poll::Ready(Ok(Request { sending, receiving: Receiving::new(receiving) }))
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

type Chunk = Result<Option<quinn::Chunk>, ReadError>;

pub(super) struct Receiving {
    id: StreamId,
    /// Here while nothing is being read.
    stream: Option<quinn::RecvStream>,
    reading: ReusableBoxFuture<'static, (quinn::RecvStream, Chunk)>,
    /// What the client is to be told when the read that is under way has ended.
    stop: Option<VarInt>,
}

impl Receiving {
    fn new(stream: quinn::RecvStream) -> Self {
        let reading = ReusableBoxFuture::new(std::future::pending());
        Self { id: id(stream.id()), stream: Some(stream), reading, stop: None }
    }
}

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if let Some(mut stream) = self.stream.take() {
            self.reading.set(async move {
                let chunk = stream.read_chunk(usize::MAX, true).await;
                (stream, chunk)
            });
        }
        let (stream, chunk) = ready!(self.reading.poll(cx));
        let stream = self.stream.insert(stream);
        if let Some(code) = self.stop.take() {
            let _ = stream.stop(code);
        }
        Poll::Ready(chunk.map(|it| it.map(|it| it.bytes)).map_err(unread))
    }

    fn stop_sending(&mut self, code: u64) {
        match &mut self.stream {
            // It fails when there is nothing left to stop.
            Some(stream) => _ = stream.stop(number(code)),
            None => self.stop = Some(number(code)),
        }
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

/// Less than this is copied together, so that it takes one write.
const JOINED_MAX: usize = 4 << 10;

pub(super) struct Sending {
    stream: quinn::SendStream,
    ahead: Ahead,
    joined: BytesMut,
    writing: Option<WriteBuf<Bytes>>,
}

impl Sending {
    fn new(stream: quinn::SendStream) -> Self {
        Self { stream, ahead: Ahead::default(), joined: BytesMut::new(), writing: None }
    }

    fn join(&mut self) {
        let ahead = self.ahead.take();
        if !ahead.is_empty() {
            self.joined.reserve(ahead.len() + JOINED_MAX / 2);
            self.joined.put(ahead);
        }
        if let Some(data) = self.writing.take_if(|it| it.remaining() <= JOINED_MAX) {
            self.joined.put(data);
        }
    }
}

impl quic::SendStream<Bytes> for Sending {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.join();
        while self.joined.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.joined)).map_err(unwritten)?;
            self.joined.advance(written);
        }
        while let Some(data) = self.writing.as_mut().filter(|it| it.has_remaining()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk())).map_err(unwritten)?;
            data.advance(written);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        debug_assert!(self.writing.is_none(), "`h3` asks whether we are ready first");
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(error.into())))
    }

    fn reset(&mut self, code: u64) {
        // It fails when it was reset or finished before.
        let _ = self.stream.reset(number(code));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
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
