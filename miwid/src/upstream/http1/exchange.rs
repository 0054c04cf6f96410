//! One exchange: the request goes out while the answer is awaited, in the same task. Only a request whose answer comes
//! before all of it is sent gets a task of its own, since whoever reads the answer may wait for the request to end.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Method, Response, StatusCode, request};
use http_body::Body as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::timeout,
};

use super::{
    head::{After, Head, NotHttp},
    incoming::{Incoming, Rest},
    lines::PlainHead,
    upload::{self, Upload},
    wire::Shared,
};
use crate::{
    exchange::Body,
    net::{Desk, Staged},
};

/// When the answer has come to its end, what is left of the request may stand still for so long.
const REST_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug)]
pub(in crate::upstream) enum Fault {
    NotHttp(&'static str),
    /// The other end closed before it had answered.
    Closed,
    Io(io::Error),
    /// The request's own body broke off.
    Body(io::Error),
}

impl From<NotHttp> for Fault {
    fn from(error: NotHttp) -> Self {
        Self::NotHttp(error.0)
    }
}

/// Sends a request on a wire that is free; `more` are whole lines that go behind the fields of its head. When this is dropped before it resolves, the wire is of no use any more.
pub(in crate::upstream) async fn send<S>(
    wire: &Shared<S>,
    (head, more): (&request::Parts, &[u8]),
    mut body: Body,
    interim: Option<&Desk>,
) -> Result<Response<Incoming<S>>, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    wire.borrow_mut().begin();
    let first = if body.is_end_stream() {
        Poll::Ready(None)
    } else {
        poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await
    };
    let mut upload = Some(
        Upload::new(head, more, body, first)
            .map_err(|(upload::Fault::Body(it) | upload::Fault::Write(it))| Fault::Body(it))?,
    );
    let mut unsent = None;
    let answer = poll_fn(|cx| {
        let wire = &mut *wire.borrow_mut();
        if let Some(uploading) = &mut upload
            && let Poll::Ready(sent) = uploading.poll(cx, &mut wire.stream, &mut wire.written)
        {
            upload = None;
            match sent {
                Ok(()) => wire.sending = false,
                Err(upload::Fault::Body(error)) => return Poll::Ready(Err(Fault::Body(error))),
                // It may have answered before it closed.
                Err(upload::Fault::Write(error)) => (wire.closing, unsent) = (true, Some(error)),
            }
        }
        wire.poll_head(cx, &head.method, interim)
    });
    let answer = answer.await.map_err(|error| match (error, unsent.take()) {
        (Fault::Closed | Fault::Io(_), Some(error)) => Fault::Io(error),
        (error, _) => error,
    })?;
    Ok(respond(wire, answer, upload))
}

/// Sends a request that is written out, on a wire that has begun; the body of its answer, when `take` took the head. `None`: it
/// is still to be heard.
pub(in crate::upstream) fn poll_lines<S>(
    wire: &Shared<S>,
    cx: &mut Context<'_>,
    request: &mut Staged,
    take: impl FnOnce(&PlainHead<'_>) -> bool,
) -> Poll<io::Result<Option<Incoming<S>>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let framing = ready!(wire.borrow_mut().poll_lines(cx, request, take))?;
    Poll::Ready(Ok(framing.map(|it| Incoming::new(wire.clone(), it, None))))
}

/// The answer to a request that is with the other end already.
pub(in crate::upstream) async fn hear<S>(
    wire: &Shared<S>,
    method: &Method,
    interim: Option<&Desk>,
) -> Result<Response<Incoming<S>>, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let answer = poll_fn(|cx| wire.borrow_mut().poll_head(cx, method, interim)).await?;
    Ok(respond(wire, answer, None))
}

fn respond<S>(wire: &Shared<S>, answer: Head, upload: Option<Upload>) -> Response<Incoming<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    if answer.after == After::Close {
        wire.borrow_mut().closing = true;
    }
    // A request that is not whole asks for no other protocol.
    let upload = upload.filter(|_| answer.status != StatusCode::SWITCHING_PROTOCOLS);
    let rest = upload.map(|upload| {
        let answered = Rc::new(Notify::new());
        let task = tokio::task::spawn_local(send_rest(wire.clone(), upload, answered.clone()));
        Rest::new(task.abort_handle(), answered)
    });
    let mut response = Response::new(Incoming::new(wire.clone(), answer.framing, rest));
    (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
    response
}

/// Sends what is left of a request that has its answer.
async fn send_rest<S>(wire: Shared<S>, mut upload: Upload, answered: Rc<Notify>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let sent = {
        let mut sending = poll_fn(|cx| {
            let wire = &mut *wire.borrow_mut();
            upload.poll(cx, &mut wire.stream, &mut wire.written)
        });
        tokio::select! {
            sent = &mut sending => Some(sent),
            () = answered.notified() => loop {
                let before = wire.borrow().written;
                match timeout(REST_TIMEOUT, &mut sending).await {
                    Ok(sent) => break Some(sent),
                    Err(_) if wire.borrow().written == before => break None,
                    Err(_) => {}
                }
            },
        }
    };
    let mut wire = wire.borrow_mut();
    match sent {
        Some(Ok(())) => wire.sending = false,
        // The answer is read on: it may say why the other end has stopped listening.
        Some(Err(upload::Fault::Write(_))) | None => wire.closing = true,
        Some(Err(upload::Fault::Body(_))) => wire.break_off(),
    }
}
