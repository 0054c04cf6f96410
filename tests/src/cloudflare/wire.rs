//! Connections of the double: TLS with HTTP/1.1 or HTTP/2, and what a fault does to an answer on its way.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{answers::Answer, double::Inner, faults::Then};

/// A request must come within this; the double is no place for slow clients.
const REQUEST_MAX: Duration = Duration::from_secs(30);
const BODY_MAX: usize = 2 << 20;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Accepts while `open`; the port stays the same when it opens again.
pub(super) async fn listen(
    inner: Arc<Inner>,
    tls: TlsAcceptor,
    listener: TcpListener,
    mut open: watch::Receiver<bool>,
) {
    let address = listener.local_addr().expect("a bound listener has an address");
    let mut listener = Some(listener);
    loop {
        let Some(bound) = &listener else {
            if open.wait_for(|it| *it).await.is_err() {
                return;
            }
            listener = Some(TcpListener::bind(address).await.expect("the port is still ours"));
            continue;
        };
        tokio::select! {
            accepted = bound.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(serve(inner.clone(), tls.clone(), stream));
                }
            }
            changed = open.changed() => {
                if changed.is_err() {
                    return;
                }
                if !*open.borrow_and_update() {
                    listener = None;
                }
            }
        }
    }
}

async fn serve(inner: Arc<Inner>, tls: TlsAcceptor, stream: TcpStream) {
    let Ok(Ok(stream)) = tokio::time::timeout(REQUEST_MAX, tls.accept(stream)).await else { return };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    // Held by every request of the connection; a fault that cuts it rings.
    let cut = Arc::new(Notify::new());
    let service = {
        let cut = cut.clone();
        service_fn(move |request| respond(inner.clone(), cut.clone(), request))
    };
    if is_http2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::select! { _ = connection => {} () = cut.notified() => {} }
        return;
    }
    let mut connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = &mut connection => {}
        () = cut.notified() => reset(connection.into_parts().io.into_inner()),
    }
}

/// Closing with nothing lingering makes the kernel send RST.
fn reset(stream: TlsStream<TcpStream>) {
    let _ = socket2::SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO));
}

async fn respond(
    inner: Arc<Inner>,
    cut: Arc<Notify>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::from(vec![b' '; BODY_MAX]),
    };
    let path = parts.uri.path().to_owned();
    let fault = inner.fault(parts.method.as_str(), &path);
    if let Some(Then::Delay(time)) = &fault {
        tokio::time::sleep(*time).await;
    }
    match fault {
        Some(Then::Hang) => std::future::pending::<()>().await,
        Some(Then::Reset) => cut_here(&cut).await,
        _ => {}
    }
    let answer = inner.answer(&parts, &body, fault.as_ref());
    match fault {
        Some(Then::HangAfter) => std::future::pending::<()>().await,
        Some(Then::ResetAfter) => cut_here(&cut).await,
        _ => {}
    }
    Ok(sent(answer, fault.as_ref()))
}

async fn cut_here(cut: &Notify) {
    cut.notify_one();
    std::future::pending::<()>().await;
}

/// The answer as it goes over the wire, spoiled as the fault wants it.
fn sent(answer: Answer, fault: Option<&Then>) -> Response<Body> {
    let Answer { status, mut headers, body } = answer;
    let body = match fault {
        Some(Then::Truncate(at)) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            let part = body.slice(..(*at).min(body.len()));
            let broken = Err(io::Error::other("cut on purpose"));
            streamed(stream::iter([Ok(part), broken]))
        }
        Some(Then::Drip(rate)) => dripping(body, *rate),
        Some(Then::Big(bytes)) => {
            let chunk = Bytes::from(vec![b' '; 64 << 10]);
            streamed(stream::iter((0..bytes.div_ceil(chunk.len())).map(move |_| Ok(chunk.clone()))))
        }
        _ => Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn streamed(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|it| it.map(Frame::data))).boxed_unsync()
}

fn dripping(body: Bytes, rate: usize) -> Body {
    let chunks: Vec<Bytes> =
        (0..body.len()).step_by(rate.max(1)).map(|at| body.slice(at..(at + rate).min(body.len()))).collect();
    streamed(stream::iter(chunks).then(|chunk| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(chunk)
    }))
}
