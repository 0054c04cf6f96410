//! One request of an HTTP/3 connection, from its stream to the life that every request has, and its answer back.

use std::{pin::pin, rc::Rc};

use bytes::Bytes;
use h3::{error::Code, server::RequestResolver};
use http::{HeaderMap, HeaderName, Method, Request, header};

use super::{
    body::StreamBody,
    quic::{Circumstances, Quic, Stopped},
    response,
};
use crate::{
    exchange::{Peer, Source},
    net::Activity,
    server::{connection::contained, head::Early, service, worker::Worker},
};

/// What HTTP/3 has no place for (RFC 9114, 4.2): a message that carries one is malformed.
const CONNECTION_SPECIFIC: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A request before its head is read.
pub(super) struct Accepted {
    pub(super) resolver: RequestResolver<Quic, Bytes>,
    pub(super) circumstances: Circumstances,
}

pub(super) fn serve(
    worker: &Rc<Worker>,
    peer: &Peer,
    activity: &Activity,
    accepted: Accepted,
) -> impl Future<Output = ()> + use<> {
    contained(&worker.metrics, answer(worker.clone(), peer.clone(), activity.clone(), accepted))
}

async fn answer(worker: Rc<Worker>, peer: Peer, activity: Activity, accepted: Accepted) {
    let Accepted { resolver, circumstances: Circumstances { outlet, is_early } } = accepted;
    let mut stopped = Stopped::of(outlet.clone());
    // What is wrong with the head itself, `h3` tells the client; a stream that brings none in time is dropped, which ends it.
    let head_timeout = worker.snapshot().settings.request_timeout;
    // Large futures are pinned where they are made, not moved to where they are awaited; each in a block, to give its room back.
    let resolved = {
        let resolved = pin!(resolver.resolve_request());
        tokio::time::timeout(head_timeout, resolved).await
    };
    let (mut request, stream) = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP/3 request refused"),
        Err(_) => return worker.metrics.connection_cut("slow-head"),
    };
    let (mut sending, mut receiving) = stream.split();
    if is_malformed(request.headers()) {
        receiving.stop_sending(Code::H3_MESSAGE_ERROR);
        return sending.stop_stream(Code::H3_MESSAGE_ERROR);
    }
    if is_early {
        request.extensions_mut().insert(Early);
    }
    let (head, metrics) = (request.method() == Method::HEAD, worker.metrics.clone());
    let body = match StreamBody::begin(receiving, request.headers()).await {
        Ok(body) => body,
        Err(error) => {
            tracing::debug!(%error, "HTTP/3 request body refused");
            return sending.stop_stream(Code::H3_MESSAGE_ERROR);
        }
    };
    let request: Request<Source> =
        request.map(|()| if body.has_ended() { Source::Empty } else { Source::Stream(Box::pin(body)) });
    // A client that cancels takes its request with it, wherever that may wait.
    let answer = {
        let served = pin!(service::serve(worker, peer, &activity, request, None));
        stopped.first(served).await
    };
    let Some(answer) = answer else { return };
    if let Err(error) = response::send(&mut sending, &outlet, &mut stopped, answer, head).await {
        if error.kind() == std::io::ErrorKind::TimedOut {
            metrics.connection_cut("write-stall");
        }
        tracing::debug!(%error, "HTTP/3 answer ended early");
    }
}

fn is_malformed(headers: &HeaderMap) -> bool {
    CONNECTION_SPECIFIC.iter().any(|it| headers.contains_key(it))
        || headers.get_all(header::TE).iter().any(|it| it != "trailers")
}

/// Takes out of an answer what was meant for a connection.
pub(super) fn strip_connection_specific(headers: &mut HeaderMap) {
    for name in &CONNECTION_SPECIFIC {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Each request pays for it with an allocation. A larger one is no mistake in itself, but should be meant.
    #[test]
    fn a_request_stays_small() {
        fn size<A, F>(_: impl Fn(A) -> F) -> usize {
            size_of::<F>()
        }
        type Given<'a> = (&'a Rc<Worker>, &'a Peer, &'a Activity, Accepted);
        let request = size(|(worker, peer, activity, accepted): Given<'_>| serve(worker, peer, activity, accepted));
        assert!(request <= 4224, "{request} bytes");
    }

    #[test]
    fn connection_specific_fields_make_a_message_malformed() {
        let check = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
            is_malformed(&headers)
        };
        assert!(check("connection", "close"));
        assert!(check("transfer-encoding", "chunked"));
        assert!(check("te", "gzip"));
        assert!(!check("te", "trailers"));
        assert!(!check("accept", "*/*"));
    }
}
