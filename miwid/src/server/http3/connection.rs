//! One HTTP/3 connection: its requests are tasks of the worker that owns it, and end with it.

use std::{net::SocketAddr, pin::pin, rc::Rc, time::Duration};

use bytes::Bytes;
use quinn::crypto::rustls::HandshakeData;
use tokio::task::JoinSet;

use super::request;
use crate::{
    exchange::{Peer, Scheme},
    net::{Activity, DrainSignal, Timeouts},
    server::worker::Worker,
    snapshot::Snapshot,
};

/// Between "no more requests soon" and "no more requests" (RFC 9114, 5.2): time for those that are on their way.
const GOAWAY_GRACE: Duration = Duration::from_millis(500);
/// How far beyond the last request the first GOAWAY reaches.
const REQUESTS_IN_GRACE: usize = 128;
/// H3_NO_ERROR.
const NO_ERROR: quinn::VarInt = quinn::VarInt::from_u32(0x100);

type Http3 = h3::server::Connection<h3_quinn::Connection, Bytes>;

pub(super) async fn serve(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    quic: quinn::Connection,
    local: SocketAddr,
    mut drain: DrainSignal,
) {
    let Some(peer) = peer(snapshot, &quic, local) else { return };
    let header_bytes_max = snapshot.settings.header_bytes_max as u64;
    let opened = h3::server::builder()
        .max_field_section_size(header_bytes_max)
        .send_grease(false)
        .build(h3_quinn::Connection::new(quic.clone()))
        .await;
    let mut http3: Http3 = match opened {
        Ok(http3) => http3,
        Err(error) => return tracing::debug!(%error, "HTTP/3 connection ended early"),
    };
    let activity = Activity::new(worker.shard.clone());
    let timeouts = Timeouts { idle: snapshot.settings.keepalive_timeout, head: snapshot.settings.request_timeout };
    // Dropped at the end: requests do not outlive their connection.
    let mut requests = JoinSet::new();
    let ended = {
        let accepting =
            accept(&mut http3, &mut requests, |resolver| request::serve(worker, &peer, &activity, resolver));
        tokio::select! {
            ended = accepting => ended,
            () = expired(&activity, timeouts) => Ended::Quiet,
            () = drain.started() => Ended::Quiet,
        }
    };
    if ended == Ended::Quiet {
        let farewell = goodbye(&mut http3, &mut requests, |it| request::serve(worker, &peer, &activity, it));
        let silence = async {
            loop {
                expired(&activity, timeouts).await;
            }
        };
        tokio::select! {
            () = farewell => {}
            () = silence => {}
        }
        quic.close(NO_ERROR, b"");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// By the client, or by an error of the protocol (which `h3` has told the client).
    Closed,
    /// By us: nothing was asked for too long, or the daemon stops.
    Quiet,
}

type Resolver = h3::server::RequestResolver<h3_quinn::Connection, Bytes>;

async fn accept<F>(http3: &mut Http3, requests: &mut JoinSet<()>, serve: impl Fn(Resolver) -> F) -> Ended
where
    F: Future<Output = ()> + 'static,
{
    loop {
        match http3.accept().await {
            Ok(Some(resolver)) => {
                requests.spawn_local(serve(resolver));
                // Those that have ended leave; the set holds only what runs.
                while requests.try_join_next().is_some() {}
            }
            Ok(None) => return Ended::Closed,
            Err(error) => {
                tracing::debug!(%error, "HTTP/3 connection ended");
                return Ended::Closed;
            }
        }
    }
}

/// GOAWAY in two steps, then the requests that were accepted are finished.
async fn goodbye<F>(http3: &mut Http3, requests: &mut JoinSet<()>, serve: impl Fn(Resolver) -> F + Copy)
where
    F: Future<Output = ()> + 'static,
{
    if http3.shutdown(REQUESTS_IN_GRACE).await.is_err() {
        return;
    }
    if let Ok(Ended::Closed) = tokio::time::timeout(GOAWAY_GRACE, accept(http3, requests, serve)).await {
        return while requests.join_next().await.is_some() {};
    }
    if http3.shutdown(0).await.is_err() {
        return;
    }
    loop {
        let mut late = JoinSet::new();
        tokio::select! {
            done = requests.join_next() => if done.is_none() { return },
            // Polled so that the control stream is read and late requests are refused.
            ended = accept(http3, &mut late, serve) => if ended == Ended::Closed { return },
        }
        while let Some(done) = late.join_next().await {
            drop(done);
        }
    }
}

async fn expired(activity: &Activity, timeouts: Timeouts) {
    let mut timer = pin!(tokio::time::sleep(timeouts.head.min(timeouts.idle)));
    std::future::poll_fn(|cx| activity.poll_expired(timeouts, timer.as_mut(), cx)).await;
}

fn peer(snapshot: &Snapshot, quic: &quinn::Connection, local: SocketAddr) -> Option<Peer> {
    let handshake = quic.handshake_data()?.downcast::<HandshakeData>().ok()?;
    let secured = snapshot.tls.as_ref()?.secured_by_quic(handshake.server_name.as_deref());
    let remote = quic.remote_address();
    let local = SocketAddr::new(quic.local_ip().unwrap_or(local.ip()), local.port());
    Some(Peer { remote, local, scheme: Scheme::Https, secured: Some(secured) })
}
