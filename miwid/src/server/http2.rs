//! HTTP/2 on a connection, by ALPN or by prior knowledge. Its streams are tasks of the worker that owns the connection.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
};

use http::Request;
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;

use super::{
    connection::{Call, Connection, Io, ended, service},
    paced::Streams,
};
use crate::{
    net::{CONNECTION_WINDOW, Gatherer, Guarded, Lingering, Phase, STREAM_WINDOW, STREAMS_MAX, gathered, head_max},
    telemetry::Metrics,
};

/// Streams that were reset before we looked at them, and streams that we had to reset: past these the client is told to calm
/// down. `Guarded` bounds what the library does not.
const RESETS_PENDING_MAX: usize = 50;
const RESETS_OURS_MAX: usize = 256;
/// At Cloudflare's edge many visitors share a connection, and all of them may go away at once.
const RESETS_PENDING_EDGE_MAX: usize = STREAMS_MAX as usize;

impl Connection {
    pub(super) async fn http2(self, io: impl Io) {
        let snapshot = self.worker.snapshot();
        // What is thrown away at the end is nobody's to judge.
        let io = Guarded::new(Lingering::new(self.watched(io)), self.worker.metrics.clone());
        let taken = io.taken();
        let (io, gatherer) = gathered(io);
        let streams = Streams::new(taken, self.worker.metrics.clone());
        let resets_pending_max = match snapshot.settings.is_edge(self.peer.remote.ip()) {
            true => RESETS_PENDING_EDGE_MAX,
            false => RESETS_PENDING_MAX,
        };
        let mut builder = conn::http2::Builder::new(streams.clone());
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(STREAM_WINDOW as usize)
            .max_concurrent_streams(STREAMS_MAX)
            .max_pending_accept_reset_streams(resets_pending_max)
            .max_local_error_reset_streams(RESETS_OURS_MAX)
            .enable_connect_protocol()
            .max_header_list_size(head_max(snapshot.settings.header_bytes_max));
        let answer = service::<Incoming>(&self);
        let service = service_fn(move |request: Request<Incoming>| {
            let (stream, answer) = (streams.open(), answer(request));
            async move { answer.await.map(|it| it.map(|body| stream.paced(body))) }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let metrics = self.worker.metrics.clone();
        let call = tokio::select! {
            done = driven(connection.as_mut(), &gatherer) => return judged(done, &metrics),
            call = self.called(self.timeouts) => call,
        };
        match call {
            // A client that takes nothing takes no farewell either.
            Call::Expired(Phase::Stalled) => return metrics.connection_cut("write-stall"),
            Call::Expired(_) | Call::Drain => connection.as_mut().graceful_shutdown(),
        }
        self.last_request(driven(connection, &gatherer)).await;
    }
}

/// Sends what the library has written whenever it has said all it has to say for now.
async fn driven<C: Future, T: AsyncWrite + Unpin>(mut connection: Pin<&mut C>, gatherer: &Gatherer<T>) -> C::Output {
    poll_fn(|cx| {
        let done = connection.as_mut().poll(cx);
        gatherer.poll_send(cx);
        done
    })
    .await
}

/// The library has told a client to calm down: that is counted, as what `Guarded` finds is.
fn judged(done: hyper::Result<()>, metrics: &Metrics) {
    let source = done.as_ref().err().and_then(std::error::Error::source);
    let reason = source.and_then(|it| it.downcast_ref::<h2::Error>()).and_then(h2::Error::reason);
    if reason == Some(h2::Reason::ENHANCE_YOUR_CALM) {
        metrics.connection_cut("http2-calm");
    }
    ended(done);
}
