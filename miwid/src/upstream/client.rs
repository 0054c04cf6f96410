//! HTTP on a connection to an endpoint. An HTTP/1.1 connection (`http1`) carries one exchange at a time and is owned by it;
//! an HTTP/2 connection is shared by as many as the other end allows, each of which holds a slot of it.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::TokioIo;

use super::{ConnectError, Protocol, http1, stream::Stream};
use crate::{
    exchange::Body,
    net::{CONNECTION_WINDOW, LocalExecutor, STREAM_WINDOW},
};

/// An app may answer with more headers than a client may send.
const HEADER_LIST_MAX: u32 = 256 * 1024;
/// A shared connection that carries nothing is closed after this. The close is announced, so it races with nothing.
const IDLE: Duration = Duration::from_secs(60);

pub(super) enum Client {
    Http1(http1::Shared<Stream>),
    Http2(Rc<Shared>),
}

impl Client {
    pub(super) async fn on(stream: Stream, protocol: Protocol, streams: usize) -> Result<Self, ConnectError> {
        match protocol {
            Protocol::Http1 => Ok(Self::Http1(Rc::new(RefCell::new(http1::Wire::new(stream))))),
            Protocol::Http2 => {
                let shared = Shared::over(TokioIo::new(stream), streams).await;
                shared.map(Self::Http2).map_err(|error| ConnectError::Failed(error.to_string()))
            }
        }
    }
}

/// An HTTP/2 connection with its streams.
pub(super) struct Shared {
    sender: http2::SendRequest<Body>,
    streams: Cell<usize>,
    /// How many streams the other end allows now.
    allowed: Box<dyn Fn() -> usize>,
    /// It refused a request or broke: what runs on it goes on, nothing new is sent.
    spent: Cell<bool>,
    used: Cell<Instant>,
}

impl Shared {
    async fn over<T>(io: T, streams: usize) -> hyper::Result<Rc<Self>>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    {
        let mut builder = http2::Builder::new(LocalExecutor);
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(streams)
            .max_send_buf_size(STREAM_WINDOW as usize)
            .max_header_list_size(HEADER_LIST_MAX);
        let (sender, connection) = builder.handshake::<T, Body>(io).await?;
        // Both the task that drives it and whoever looks for a free stream need the connection; they share a thread.
        let connection = Rc::new(RefCell::new(Some(connection)));
        let driven = connection.clone();
        tokio::task::spawn_local(async move {
            let _ = poll_fn(|cx| match &mut *driven.borrow_mut() {
                Some(connection) => Pin::new(connection).poll(cx),
                None => Poll::Ready(Ok(())),
            })
            .await;
            // Its end of the queue goes with it: only then does a sender know that it is closed.
            driven.borrow_mut().take();
        });
        Ok(Rc::new(Self {
            sender,
            streams: Cell::new(0),
            allowed: Box::new(move || connection.borrow().as_ref().map_or(0, |it| it.current_max_send_streams())),
            spent: Cell::new(false),
            used: Cell::new(Instant::now()),
        }))
    }

    /// Takes new requests.
    pub(super) fn is_open(&self) -> bool {
        !self.spent.get() && !self.sender.is_closed()
    }

    pub(super) fn has_room(&self) -> bool {
        self.streams.get() < self.allowed()
    }

    pub(super) fn allowed(&self) -> usize {
        (self.allowed)()
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    pub(super) fn is_idle_too_long(&self, now: Instant) -> bool {
        self.streams.get() == 0 && now.duration_since(self.used.get()) > IDLE
    }
}

/// One stream of a shared connection, counted until it is dropped.
pub(super) struct Slot(Rc<Shared>);

impl Slot {
    pub(super) fn of(shared: &Rc<Shared>) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        Self(shared.clone())
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        let answer = self.0.sender.clone().try_send_request(request).await;
        answer.map_err(|error| {
            let (error, OnlyThis(only_this)) = SendError::of(error);
            if !only_this {
                self.0.spent.set(true);
            }
            error
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.used.set(Instant::now());
    }
}

/// Why a request got no answer.
pub struct SendError {
    pub cause: Cause,
    /// The request's body, when nothing of it was touched.
    pub body: Option<Body>,
    /// The other end says that it has not looked at the request: it may be sent again, whatever it is.
    pub unprocessed: bool,
}

/// In the words of the log.
#[derive(Clone, Debug)]
pub enum Cause {
    /// There was an answer, of sorts.
    NotHttp(String),
    Broken(String),
}

impl SendError {
    /// The connection went, and it is not known how far the request came.
    pub fn closed() -> Self {
        http1::Fault::Closed.into()
    }

    fn of(mut error: TrySendError<Request<Body>>) -> (Self, OnlyThis) {
        let body = error.take_message().map(Request::into_body);
        let error = error.into_error();
        let unprocessed = h2_of(&error)
            .is_some_and(|it| it.is_remote() && (it.is_go_away() || it.reason() == Some(h2::Reason::REFUSED_STREAM)));
        let only_this = !unprocessed && h2_of(&error).is_some_and(h2::Error::is_reset);
        let text = error.to_string();
        let cause = if error.is_parse() { Cause::NotHttp(text) } else { Cause::Broken(text) };
        (Self { cause, body, unprocessed }, OnlyThis(only_this))
    }
}

/// The connection is as good as before.
struct OnlyThis(bool);

impl From<http1::Fault> for SendError {
    fn from(fault: http1::Fault) -> Self {
        Self { cause: fault.into(), body: None, unprocessed: false }
    }
}

impl From<http1::Fault> for Cause {
    fn from(fault: http1::Fault) -> Self {
        match fault {
            http1::Fault::NotHttp(why) => Self::NotHttp(why.to_owned()),
            http1::Fault::Closed => Self::Broken("it closed the connection before it had answered".to_owned()),
            http1::Fault::Io(error) => Self::Broken(error.to_string()),
            http1::Fault::Body(error) => Self::Broken(format!("the request's body broke off: {error}")),
        }
    }
}

fn h2_of(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}
