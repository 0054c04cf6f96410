//! The open listeners. A reload binds what is new before anything changes, and forgets what is gone afterwards.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Workers;
#[cfg(feature = "http3")]
use crate::net::bind_udp_group;
use crate::{
    link::{Kept, Line, ToWarden},
    net::{BindError, bind_group, more_beside},
};

/// How long QUIC connections have when another engine takes their socket over.
const QUIC_FAREWELL: Duration = Duration::from_secs(5);

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
    /// Its place in a group, by which packets find it.
    #[cfg(feature = "http3")]
    Udp {
        socket: std::net::UdpSocket,
        index: usize,
        count: usize,
    },
}

impl Socket {
    fn try_clone(&self) -> std::io::Result<OwnedFd> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(OwnedFd::from),
            #[cfg(feature = "http3")]
            Self::Udp { socket, .. } => socket.try_clone().map(OwnedFd::from),
        }
    }
}

fn bind_sockets(binding: &Binding, count: usize) -> Result<Vec<Socket>, BindError> {
    match binding.kind {
        #[cfg(feature = "http3")]
        Kind::Http3 => Ok(grouped(bind_udp_group(binding.address, count)?)),
        _ => Ok(bind_group(binding.address, count)?.into_iter().map(Socket::Tcp).collect()),
    }
}

/// Sockets that another engine or a service manager has opened. All of them must be read, or what the kernel gives them waits for
/// ever; more workers than that get sockets of their own, or share where the address cannot be shared.
fn adopt_sockets(binding: &Binding, kept: Vec<OwnedFd>, count: usize) -> Result<Vec<Socket>, BindError> {
    match binding.kind {
        #[cfg(feature = "http3")]
        Kind::Http3 => Ok(grouped(kept.into_iter().map(std::net::UdpSocket::from).collect())),
        _ => {
            let kept: Vec<_> = kept.into_iter().map(TcpListener::from).collect();
            let more = more_beside(binding.address, &kept, count.saturating_sub(kept.len()))?;
            Ok(kept.into_iter().chain(more).map(Socket::Tcp).collect())
        }
    }
}

#[cfg(feature = "http3")]
fn grouped(sockets: Vec<std::net::UdpSocket>) -> Vec<Socket> {
    let count = sockets.len();
    sockets.into_iter().enumerate().map(|(index, socket)| Socket::Udp { socket, index, count }).collect()
}

/// What makes a socket this one and no other.
pub(super) type Key = (SocketAddr, Kind);

type Table = BTreeMap<Key, Binding>;

impl Binding {
    pub(super) fn key(&self) -> Key {
        (self.address, self.kind)
    }

    /// What the warden calls its sockets.
    fn name(&self) -> String {
        let transport = if self.kind == Kind::Http3 { "udp" } else { "tcp" };
        format!("{transport}:{}", self.address)
    }
}

/// Sockets that are bound but do not accept yet.
#[derive(Default)]
pub struct Prepared {
    bound: Vec<(Binding, Vec<Socket>)>,
}

impl Prepared {
    /// What another engine still reads: the sockets of QUIC.
    pub fn split_quic(self) -> (Self, Self) {
        let (quic, others) = self.bound.into_iter().partition(|(binding, _)| binding.kind == Kind::Http3);
        (Self { bound: others }, Self { bound: quic })
    }
}

/// Cheap to clone; `reload` tells it.
#[derive(Clone)]
pub struct Listeners {
    workers: Arc<Workers>,
    open: Arc<Mutex<Table>>,
    /// Who keeps the sockets when this engine is gone, and what was kept from the one before.
    warden: Option<Line>,
    kept: Arc<Mutex<Kept>>,
}

impl Listeners {
    pub fn new(workers: Arc<Workers>) -> Self {
        Self { workers, open: Arc::default(), warden: None, kept: Arc::default() }
    }

    /// Sockets that were kept are taken before others are bound, and the warden gets copies of what is opened.
    pub fn kept_by(self, warden: Line, kept: Kept) -> Self {
        Self { warden: Some(warden), kept: Arc::new(Mutex::new(kept)), ..self }
    }

    pub fn open(&self) -> Vec<Binding> {
        lock(&self.open).values().copied().collect()
    }

    /// Binds what `wanted` has more than is open. Touches nothing else.
    pub fn prepare(&self, wanted: &[Binding]) -> Result<Prepared, Vec<BindError>> {
        let open = lock(&self.open);
        let (mut prepared, mut errors) = (Prepared::default(), Vec::new());
        for binding in wanted.iter().filter(|it| !open.contains_key(&it.key())) {
            match self.sockets(binding) {
                Ok(sockets) => prepared.bound.push((*binding, sockets)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(prepared) } else { Err(errors) }
    }

    fn sockets(&self, binding: &Binding) -> Result<Vec<Socket>, BindError> {
        match lock(&self.kept).remove(&binding.name()) {
            Some(kept) => adopt_sockets(binding, kept, self.workers.count()),
            None => bind_sockets(binding, self.workers.count()),
        }
    }

    /// Opens what was prepared.
    pub fn commit(&self, prepared: Prepared) {
        let mut open = lock(&self.open);
        for (binding, sockets) in prepared.bound {
            if let Some(warden) = &self.warden {
                // Also what was kept before: only what is open now is kept on.
                warden.say(ToWarden::Drop { key: binding.name(), ending: false });
                warden.keep(&binding.name(), sockets.iter().filter_map(|it| it.try_clone().ok()).collect());
            }
            self.workers.listen(binding.key(), sockets);
            open.insert(binding.key(), binding);
        }
    }

    /// What was kept and nobody wants any more.
    pub fn drop_kept(&self) {
        for key in std::mem::take(&mut *lock(&self.kept)).into_keys() {
            if let Some(warden) = &self.warden {
                warden.say(ToWarden::Drop { key, ending: false });
            }
        }
    }

    /// Closes what `wanted` no longer has; connections go on.
    pub fn dispose(&self, wanted: &[Binding]) {
        lock(&self.open).retain(|key, binding| {
            let keep = wanted.iter().any(|it| it.key() == *key);
            if !keep {
                // No deadline: nobody waits for these connections, and what they are owed they get.
                self.workers.forget(*key, Duration::MAX);
                if let Some(warden) = &self.warden {
                    warden.say(ToWarden::Drop { key: binding.name(), ending: false });
                }
            }
            keep
        });
    }

    /// Another engine accepts from now on. Connections are told to go as soon as they have their answers; QUIC, which cannot
    /// be shared, goes on until `leave_quic`.
    pub fn pause(&self) {
        for key in lock(&self.open).keys().filter(|it| it.1 != Kind::Http3) {
            self.workers.forget(*key, Duration::MAX);
        }
    }

    /// Accepts again, from what the warden has kept.
    pub fn resume(&self, mut kept: Kept) {
        for (key, binding) in lock(&self.open).iter().filter(|(key, _)| key.1 != Kind::Http3) {
            let sockets = kept.remove(&binding.name()).unwrap_or_default();
            self.workers.listen(*key, sockets.into_iter().map(TcpListener::from).map(Socket::Tcp).collect());
        }
    }

    /// The end: nobody will accept what comes now, so it is refused; unless a service manager has the sockets, too.
    pub fn release(&self) {
        if let Some(warden) = &self.warden {
            lock(&self.open).values().for_each(|it| warden.say(ToWarden::Drop { key: it.name(), ending: true }));
        }
    }

    pub fn leave_quic(&self) {
        for key in lock(&self.open).keys().filter(|it| it.1 == Kind::Http3) {
            self.workers.forget(*key, QUIC_FAREWELL);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
