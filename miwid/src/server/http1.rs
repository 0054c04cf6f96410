//! HTTP/1.1 on a connection: hyper drives it, `Activity` ends it when it is silent for too long.

use std::pin::Pin;

use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::connection::{Call, Connection, FAREWELL, Io, ended, service};
use crate::{net::Phase, snapshot::Snapshot};

const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\nmiwi-reason: head-timeout\r\ncontent-length: 0\r\n\r\n";

impl Connection {
    pub(super) async fn http1(mut self, io: impl Io, snapshot: &Snapshot) {
        let mut builder = conn::http1::Builder::new();
        // hyper's own timer would cost a boxed sleep per request; `Activity` watches heads and idleness instead.
        builder.header_read_timeout(None).max_header_size(snapshot.settings.header_bytes_max).writev(true);
        let io = TokioIo::new(self.watched(io));
        let service = service_fn(service::<Incoming>(&self));
        let mut connection = builder.serve_connection(io, service).with_upgrades();
        let call = tokio::select! {
            done = &mut connection => return ended(done),
            call = self.called() => call,
        };
        match call {
            Call::Expired(Phase::Head) => {
                if let Some(parts) = connection.into_parts() {
                    refuse_slow_head(parts.io.into_inner().into_inner()).await;
                }
            }
            Call::Expired(_) => {
                Pin::new(&mut connection).graceful_shutdown();
                let _ = tokio::time::timeout(FAREWELL, &mut connection).await;
            }
            // The request that runs is finished, a head that has begun is still awaited.
            Call::Drain => {
                Pin::new(&mut connection).graceful_shutdown();
                self.last_request(connection).await;
            }
        }
    }
}

async fn refuse_slow_head(mut io: impl Io) {
    let farewell = async {
        io.write_all(REQUEST_TIMEOUT).await?;
        io.shutdown().await
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}
