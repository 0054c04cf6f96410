//! The open listeners. A reload binds what is new before anything changes, and forgets what is gone afterwards.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
};

use super::Workers;
#[cfg(feature = "http3")]
use crate::net::bind_udp_group;
use crate::net::{BindError, bind_group};

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Http,
    Https,
    /// QUIC, over UDP.
    Http3,
}

/// One address that is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    pub address: SocketAddr,
    pub kind: Kind,
    pub http2: bool,
}

/// The addresses that a configuration asks for.
pub fn addresses(config: &config::Config) -> Vec<Binding> {
    let server = &config.server;
    let bind = |kind, port, http2| {
        let binding = move |ip| Binding { address: SocketAddr::new(ip, port), kind, http2 };
        server.bind.iter().copied().map(binding)
    };
    let mut wanted = Vec::new();
    if server.http_port != 0 {
        wanted.extend(bind(Kind::Http, server.http_port, server.h2c));
    }
    if config.https() {
        wanted.extend(bind(Kind::Https, server.https_port, true));
        if cfg!(feature = "http3") && server.http3 {
            wanted.extend(bind(Kind::Http3, server.https_port, false));
        }
    }
    wanted
}

/// One worker's part of a listener.
pub(super) enum Socket {
    Tcp(TcpListener),
    #[cfg(feature = "http3")]
    Udp(std::net::UdpSocket),
}

fn bind_sockets(binding: &Binding, count: usize) -> Result<Vec<Socket>, BindError> {
    match binding.kind {
        #[cfg(feature = "http3")]
        Kind::Http3 => Ok(bind_udp_group(binding.address, count)?.into_iter().map(Socket::Udp).collect()),
        _ => Ok(bind_group(binding.address, count)?.into_iter().map(Socket::Tcp).collect()),
    }
}

/// What makes a socket this one and no other.
pub(super) type Key = (SocketAddr, Kind);

type Table = BTreeMap<Key, Binding>;

impl Binding {
    pub(super) fn key(&self) -> Key {
        (self.address, self.kind)
    }
}

/// Sockets that are bound but do not accept yet.
#[derive(Default)]
pub struct Prepared {
    bound: Vec<(Binding, Vec<Socket>)>,
}

/// Cheap to clone; `reload` tells it.
#[derive(Clone)]
pub struct Listeners {
    workers: Arc<Workers>,
    open: Arc<Mutex<Table>>,
}

impl Listeners {
    pub fn new(workers: Arc<Workers>) -> Self {
        Self { workers, open: Arc::default() }
    }

    pub fn open(&self) -> Vec<Binding> {
        self.table().values().copied().collect()
    }

    /// Binds what `wanted` has more than is open. Touches nothing else.
    pub fn prepare(&self, wanted: &[Binding]) -> Result<Prepared, Vec<BindError>> {
        let open = self.table();
        let (mut prepared, mut errors) = (Prepared::default(), Vec::new());
        for binding in wanted.iter().filter(|it| !open.contains_key(&it.key())) {
            match bind_sockets(binding, self.workers.count()) {
                Ok(sockets) => prepared.bound.push((*binding, sockets)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(prepared) } else { Err(errors) }
    }

    /// Opens what was prepared.
    pub fn commit(&self, prepared: Prepared) {
        let mut open = self.table();
        for (binding, sockets) in prepared.bound {
            self.workers.listen(binding.key(), sockets);
            open.insert(binding.key(), binding);
        }
    }

    /// Closes what `wanted` no longer has; connections go on.
    pub fn dispose(&self, wanted: &[Binding]) {
        self.table().retain(|key, _| {
            let keep = wanted.iter().any(|it| it.key() == *key);
            if !keep {
                self.workers.forget(*key);
            }
            keep
        });
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
