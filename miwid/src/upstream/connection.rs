//! A connection to an endpoint as whoever forwards a request sees it, whichever version of HTTP it speaks.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Endpoint, Protocol, SendError, client::Slot, http1, stream::Stream};
use crate::{
    exchange::Body,
    net::{Desk, Prefixed, fields},
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

    /// After a 101 whose body has been dropped. `None`: the other end has switched before it had the whole request.
    pub fn into_upgraded(self) -> Option<impl AsyncRead + AsyncWrite + Unpin + 'static> {
        let Carrier::Own(wire) = self.carrier else { return None };
        let (unread, stream) = Rc::into_inner(wire)?.into_inner().into_upgraded()?;
        Some(Prefixed::new(unread, stream))
    }
}

/// The body of an answer.
pub struct Incoming(Source);

enum Source {
    Own(http1::Incoming<Stream>),
    Shared(hyper::body::Incoming),
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
