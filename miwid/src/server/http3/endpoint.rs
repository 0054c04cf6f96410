//! One QUIC endpoint: who may begin a handshake, and with which certificates. It outlives reloads: every new connection
//! takes what the snapshot of its moment says.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{SocketAddr, UdpSocket},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use quinn::{
    Connecting, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig,
    TransportConfig, crypto::rustls::QuicServerConfig,
};
use tokio::sync::mpsc;

use super::connection;
use crate::{
    net::{CONNECTION_WINDOW, DrainSignal, STREAM_WINDOW, STREAMS_MAX, SteeredIds},
    server::{connection::contained, worker::Worker},
    snapshot::Snapshot,
    telemetry::Handshake,
    tls::Terminator,
};

/// More unfinished handshakes than this on one worker: clients must first show that their address is theirs (RFC 9000,
/// 8.1.2), which costs them a round trip and us nothing.
const RETRY_ABOVE: usize = 64;
/// More than this: refused.
const REFUSE_ABOVE: usize = 512;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Unidirectional streams: control and two of QPACK, and some that we do not know and ignore.
const UNI_STREAMS_MAX: u32 = 16;

/// Serves `socket` until the daemon drains or the listener is withdrawn.
pub(in crate::server) async fn listen(
    worker: Rc<Worker>,
    ids: SteeredIds,
    socket: UdpSocket,
    mut drain: DrainSignal,
    open: mpsc::Sender<()>,
) {
    let opened = socket.local_addr().and_then(|local| {
        let door = Rc::new(Door { local, shaking: Cell::default(), made: RefCell::default() });
        let first = door.config(&worker.snapshot()).ok_or_else(|| io::Error::other("HTTPS is off"))?;
        Ok((open_endpoint(ids, socket, &first)?, door))
    });
    let (endpoint, door) = match opened {
        Ok(opened) => opened,
        Err(error) => return tracing::error!(%error, "QUIC endpoint lost"),
    };
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = drain.started() => break,
        };
        let Some(incoming) = incoming else { break };
        door.clone().admit(&worker, incoming, &drain, &open);
    }
    // No more connections; those that are open say goodbye by themselves.
    endpoint.set_server_config(None);
    endpoint.wait_idle().await;
    drop(open);
}

fn open_endpoint(ids: SteeredIds, socket: UdpSocket, first: &ServerConfig) -> io::Result<Endpoint> {
    let mut config = EndpointConfig::default();
    config.cid_generator(move || Box::new(ids));
    // Every connection brings the configuration of its moment; this one is for what comes before, such as Retry.
    Endpoint::new(config, Some(first.clone()), socket, Arc::new(quinn::TokioRuntime))
}

/// What becomes of first packets: the handshakes under way, and the configuration for the next.
struct Door {
    local: SocketAddr,
    shaking: Cell<usize>,
    made: RefCell<Option<(Arc<Terminator>, Arc<ServerConfig>)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Retry,
    Refuse,
}

/// Pure: how a client is received while `shaking` others have not finished their handshakes.
fn judge(shaking: usize, validated: bool) -> Verdict {
    match shaking {
        REFUSE_ABOVE.. => Verdict::Refuse,
        RETRY_ABOVE.. if !validated => Verdict::Retry,
        _ => Verdict::Accept,
    }
}

impl Door {
    fn admit(self: Rc<Self>, worker: &Rc<Worker>, incoming: Incoming, drain: &DrainSignal, open: &mpsc::Sender<()>) {
        match judge(self.shaking.get(), incoming.remote_address_validated()) {
            Verdict::Accept => {}
            // Fails only for a client that was asked already.
            Verdict::Retry => return drop(incoming.retry()),
            Verdict::Refuse => {
                worker.metrics.connection_cut("quic-refused");
                return incoming.refuse();
            }
        }
        let snapshot = worker.snapshot();
        if snapshot.settings.hangs_up_on(incoming.remote_address().ip()) {
            worker.metrics.connection_cut("only-cloudflare");
            return incoming.refuse();
        }
        let (Some(config), Some(permit)) = (self.config(&snapshot), worker.admission.try_enter()) else {
            return incoming.refuse();
        };
        let (worker, drain, open) = (worker.clone(), drain.clone(), open.clone());
        let early_data = snapshot.tls.as_ref().is_some_and(|it| it.takes_early_data());
        self.shaking.set(self.shaking.get() + 1);
        tokio::task::spawn_local(async move {
            let shaken = match incoming.accept_with(config) {
                Ok(connecting) => tokio::time::timeout(HANDSHAKE_TIMEOUT, shake(connecting, early_data)).await,
                Err(error) => Ok(Err(error)),
            };
            self.shaking.set(self.shaking.get() - 1);
            match shaken {
                Ok(Ok(connection)) => {
                    worker.shard.handshake(Handshake::Full);
                    worker.shard.connection_opened();
                    self.serve(&worker, &snapshot, connection, drain).await;
                    worker.shard.connection_closed();
                }
                Ok(Err(error)) => {
                    worker.shard.handshake(Handshake::Failed);
                    tracing::debug!(target: "tls", %error, "QUIC handshake failed");
                }
                Err(_) => worker.shard.handshake(Handshake::Timeout),
            }
            drop((permit, open));
        });
    }

    fn serve(
        &self,
        worker: &Rc<Worker>,
        snapshot: &Snapshot,
        connection: Connection,
        drain: DrainSignal,
    ) -> impl Future<Output = ()> {
        contained(&worker.metrics, connection::serve(worker, snapshot, connection, self.local, drain))
    }

    /// Made once for every terminator: a reload that keeps it keeps this too.
    fn config(&self, snapshot: &Snapshot) -> Option<Arc<ServerConfig>> {
        let terminator = snapshot.tls.as_ref()?;
        let mut made = self.made.borrow_mut();
        if let Some((of, config)) = &*made
            && Arc::ptr_eq(of, terminator)
        {
            return Some(config.clone());
        }
        let crypto = QuicServerConfig::try_from(terminator.quic());
        let crypto =
            crypto.inspect_err(|error| tracing::error!(target: "tls", %error, "no QUIC with this policy")).ok()?;
        let config = Arc::new(server_config(Arc::new(crypto), snapshot.settings.keepalive_timeout));
        *made = Some((terminator.clone(), config.clone()));
        Some(config)
    }
}

/// A client that comes back need not wait for the end of its handshake, if it may send early data; what it sends is marked.
async fn shake(mut connecting: Connecting, early_data: bool) -> Result<Connection, ConnectionError> {
    if !early_data {
        return connecting.await;
    }
    connecting.handshake_data().await?;
    match connecting.into_0rtt() {
        Ok((connection, _)) => Ok(connection),
        Err(connecting) => connecting.await,
    }
}

fn server_config(crypto: Arc<dyn quinn::crypto::ServerConfig>, idle: Duration) -> ServerConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        // A long answer may be silent for longer than the idle timeout; whether the client is still there, pings tell.
        .keep_alive_interval(Some(idle / 3))
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(UNI_STREAMS_MAX.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(CONNECTION_WINDOW.into());
    let mut config = ServerConfig::with_crypto(crypto);
    config.transport_config(Arc::new(transport)).max_incoming(REFUSE_ABOVE * 2);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_validated_only_under_load() {
        assert_eq!(judge(0, false), Verdict::Accept);
        assert_eq!(judge(RETRY_ABOVE - 1, false), Verdict::Accept);
        assert_eq!(judge(RETRY_ABOVE, false), Verdict::Retry);
        assert_eq!(judge(RETRY_ABOVE, true), Verdict::Accept);
        assert_eq!(judge(REFUSE_ABOVE, true), Verdict::Refuse);
    }
}
