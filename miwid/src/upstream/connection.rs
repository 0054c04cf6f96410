//! A connection to an endpoint as whoever forwards a request sees it, whichever version of HTTP it speaks.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Request, Response, request};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Endpoint, PlainHead, Protocol, SendError,
    client::Slot,
    http1::{self, Fault},
    stream::Stream,
};
use crate::{
    exchange::Body,
    net::{Desk, Pipe, Prefixed, Staged, fields},
};

/// A connection to an endpoint, ready for a request.
pub struct Connection {
    carrier: Carrier,
    endpoint: Arc<Endpoint>,
    used: Use,
}

/// A request's head: to be written as it is, `more` (whole lines) behind its own fields; or to be taken apart by whoever sends
/// it.
pub enum Head<'a> {
    Lent { parts: &'a request::Parts, more: &'a [u8] },
    Given(Box<request::Parts>),
}

impl Head<'_> {
    fn as_lines(&self) -> (&request::Parts, &[u8]) {
        match self {
            Self::Lent { parts, more } => (parts, more),
            Self::Given(parts) => (parts, b""),
        }
    }

    fn into_parts(self) -> request::Parts {
        match self {
            Self::Lent { parts, more } => {
                let mut parts = parts.clone();
                parts.headers.extend(fields(&Bytes::copy_from_slice(more)).unwrap_or_default());
                parts
            }
            Self::Given(parts) => *parts,
        }
    }
}

pub(super) enum Carrier {
    Own(http1::Shared<Stream>),
    Shared(Slot),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    First,
    Again,
}

impl Connection {
    pub(super) fn new(carrier: Carrier, endpoint: &Arc<Endpoint>, used: Use) -> Self {
        Self { carrier, endpoint: endpoint.clone(), used }
    }

    pub(super) fn into_parts(self) -> (Carrier, Arc<Endpoint>) {
        (self.carrier, self.endpoint)
    }

    /// Has carried a request before: the other end may be closing it this very moment.
    pub fn is_reused(&self) -> bool {
        self.used == Use::Again
    }

    pub fn protocol(&self) -> Protocol {
        match self.carrier {
            Carrier::Own(_) => Protocol::Http1,
            Carrier::Shared(_) => Protocol::Http2,
        }
    }

    /// What the other end says before its answer goes to `interim`. The body comes back in the error when nothing of it was
    /// touched.
    pub async fn send(
        &mut self,
        head: Head<'_>,
        body: Body,
        interim: Option<Desk>,
    ) -> Result<Response<Incoming>, SendError> {
        match &mut self.carrier {
            Carrier::Own(wire) => {
                let answer = http1::send(wire, head.as_lines(), body, interim.as_ref()).await?;
                Ok(answer.map(|it| Incoming(Source::Own(it))))
            }
            Carrier::Shared(slot) => {
                let mut request = Request::from_parts(head.into_parts(), body);
                if let Some(desk) = interim {
                    hyper::ext::on_informational(&mut request, move |it| desk.inform(it.status(), it.headers()));
                }
                Box::pin(slot.send(request)).await.map(|it| it.map(|it| Incoming(Source::Shared(it))))
            }
        }
    }

    /// It is about to carry what `poll_lines` sends.
    pub fn begin_lines(&self) {
        if let Carrier::Own(wire) = &self.carrier {
            wire.borrow_mut().begin();
        }
    }

    /// Sends a GET that is written out, and shows the head of its answer to `take` if it is plain. Only on a connection from
    /// `checkout`. Whoever drops it before it resolves has used it up.
    pub fn poll_lines(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Staged,
        take: impl FnOnce(&PlainHead<'_>) -> bool,
    ) -> Poll<Heard> {
        let Carrier::Own(wire) = &self.carrier else { return Poll::Ready(Heard::Nothing) };
        Poll::Ready(match ready!(http1::poll_lines(wire, cx, request, take)) {
            Ok(Some(body)) => Heard::Plain(Incoming(Source::Own(body))),
            Ok(None) => Heard::Something,
            Err(_) => Heard::Nothing,
        })
    }

    /// The answer to a request that `poll_lines` has sent, when it was not plain.
    pub async fn hear(&mut self, method: &Method, interim: Option<Desk>) -> Result<Response<Incoming>, SendError> {
        let Carrier::Own(wire) = &self.carrier else { return Err(Fault::Closed.into()) };
        let answer = http1::hear(wire, method, interim.as_ref()).await?;
        Ok(answer.map(|it| Incoming(Source::Own(it))))
    }

    /// After a 101 whose body has been dropped. `None`: the other end has switched before it had the whole request.
    pub fn into_upgraded(self) -> Option<impl AsyncRead + AsyncWrite + Unpin + 'static> {
        let Carrier::Own(wire) = self.carrier else { return None };
        let (unread, stream) = Rc::into_inner(wire)?.into_inner().into_upgraded()?;
        Some(Prefixed::new(unread, stream))
    }
}

/// What came of a request that was written out.
pub enum Heard {
    /// Its head was taken; this is the body.
    Plain(Incoming),
    /// An answer that has to be read the usual way: `hear`.
    Something,
    /// The connection broke, or had been closed.
    Nothing,
}

/// The body of an answer.
pub struct Incoming(Source);

enum Source {
    Own(http1::Incoming<Stream>),
    Shared(hyper::body::Incoming),
}

impl Incoming {
    /// What is left to come, if the kernel can move it by itself.
    pub fn spliceable(&self) -> Option<u64> {
        match &self.0 {
            Source::Own(it) => it.spliceable(),
            Source::Shared(_) => None,
        }
    }

    /// Moves some of that to a pipe that is empty; Ready with how much.
    pub fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Source::Own(it) => it.poll_splice(cx, pipe),
            Source::Shared(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.0 {
            Source::Own(it) => Pin::new(it).poll_frame(cx),
            Source::Shared(it) => Pin::new(it).poll_frame(cx).map_err(io::Error::other),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Own(it) => it.is_end_stream(),
            Source::Shared(it) => it.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Own(it) => it.size_hint(),
            Source::Shared(it) => it.size_hint(),
        }
    }
}
