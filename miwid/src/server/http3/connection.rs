//! One HTTP/3 connection. Its requests end with it; those that have to wait are tasks of the worker that owns it.

use std::{future::poll_fn, net::SocketAddr, pin::pin, rc::Rc, task::Poll, time::Duration};

use bytes::Bytes;
use quinn::crypto::rustls::HandshakeData;
use tokio::task::JoinSet;

use super::{
    quic::{Last, Quic},
    request::{self, Accepted},
};
use crate::{
    exchange::{Peer, Scheme},
    net::{Activity, DrainSignal, STREAMS_MAX, Timeouts, head_max},
    server::worker::Worker,
    snapshot::Snapshot,
};

/// Between "no more requests soon" and "no more requests" (RFC 9114, 5.2): time for those that are on their way.
const GOAWAY_GRACE: Duration = Duration::from_millis(500);
/// H3_NO_ERROR.
const NO_ERROR: quinn::VarInt = quinn::VarInt::from_u32(0x100);

type Http3 = h3::server::Connection<Quic, Bytes>;

/// A connection, and word of the request that it accepted last.
struct Accepting {
    http3: Http3,
    last: Last,
}

/// How far a goodbye has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The client knows that it should ask elsewhere; what it has asked already is answered.
    Leaving,
    /// It knows the last request that is answered.
    Left,
}

pub(super) async fn serve(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    quic: quinn::Connection,
    local: SocketAddr,
    drain: DrainSignal,
) {
    let Some(peer) = peer(snapshot, &quic, local) else { return };
    let last = Last::default();
    let opened = h3::server::builder()
        .max_field_section_size(head_max(snapshot.settings.header_bytes_max).into())
        .send_grease(false)
        .build(Quic::new(quic.clone(), last.clone()))
        .await;
    let ended = match opened {
        Ok(http3) => drive(Accepting { http3, last }, worker, snapshot, &peer, drain).await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => quic.close(NO_ERROR, b""),
        // `h3` has told the client, if it was not the client who ended it.
        Err(error) => tracing::debug!(%error, "HTTP/3 connection ended"),
    }
}

/// Until the client has gone (an error), or has been told to go and has all that it is owed.
async fn drive(
    accepting: Accepting,
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    peer: &Peer,
    mut drain: DrainSignal,
) -> Result<(), h3::error::ConnectionError> {
    let Accepting { mut http3, last } = accepting;
    let activity = Activity::new(worker.shard.clone());
    let timeouts = Timeouts { idle: snapshot.settings.keepalive_timeout, head: snapshot.settings.request_timeout };
    let mut idle = pin!(tokio::time::sleep(timeouts.head.min(timeouts.idle)));
    let mut grace = pin!(tokio::time::sleep(Duration::ZERO));
    // Dropped at the end: requests do not outlive their connection.
    let mut requests = JoinSet::new();
    let mut stage = Stage::Open;
    while stage != Stage::Left || !requests.is_empty() {
        tokio::select! {
            accepted = http3.accept() => match accepted? {
                Some(resolver) => {
                    // Set by the acceptance that has just returned.
                    let Some(circumstances) = last.take() else { continue };
                    let accepted = Accepted { resolver, circumstances };
                    let mut request = Box::pin(request::serve(worker, peer, &activity, accepted));
                    // What is at hand is answered here: a task would cost more than the answer.
                    if poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx))).await.is_pending() {
                        requests.spawn_local(request);
                    }
                }
                // The client has said goodbye, and all that it asked for is answered.
                None => return Ok(()),
            },
            Some(_) = requests.join_next() => {}
            () = drain.started(), if stage == Stage::Open => stage = leave(&mut http3, grace.as_mut()).await?,
            _ = poll_fn(|cx| activity.poll_expired(timeouts, idle.as_mut(), cx)), if stage != Stage::Leaving => {
                if stage == Stage::Left {
                    return Ok(());
                }
                stage = leave(&mut http3, grace.as_mut()).await?;
            }
            () = grace.as_mut(), if stage == Stage::Leaving => {
                http3.shutdown(0).await?;
                stage = Stage::Left;
            }
        }
    }
    Ok(())
}

/// The first GOAWAY names more requests than have come, so that none on its way is lost.
async fn leave(
    http3: &mut Http3,
    grace: std::pin::Pin<&mut tokio::time::Sleep>,
) -> Result<Stage, h3::error::ConnectionError> {
    http3.shutdown(STREAMS_MAX as usize).await?;
    grace.reset(tokio::time::Instant::now() + GOAWAY_GRACE);
    Ok(Stage::Leaving)
}

fn peer(snapshot: &Snapshot, quic: &quinn::Connection, local: SocketAddr) -> Option<Peer> {
    let handshake = quic.handshake_data()?.downcast::<HandshakeData>().ok()?;
    let secured = snapshot.tls.as_ref()?.secured_by_quic(handshake.server_name.as_deref());
    let remote = quic.remote_address();
    let local = SocketAddr::new(quic.local_ip().unwrap_or(local.ip()), local.port());
    Some(Peer { remote, local, scheme: Scheme::Https, secured: Some(secured) })
}
