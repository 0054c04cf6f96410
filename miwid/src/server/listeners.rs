//! The open listeners. A reload binds what is new before anything changes, and forgets what is gone afterwards.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
};

use super::Workers;
use crate::net::{BindError, bind_group};

/// One address that is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    pub address: SocketAddr,
    pub http2: bool,
}

/// The addresses that a configuration asks for.
pub fn addresses(server: &config::Server) -> Vec<Binding> {
    if server.http_port == 0 {
        return Vec::new();
    }
    let bind = |ip| Binding { address: SocketAddr::new(ip, server.http_port), http2: server.h2c };
    server.bind.iter().copied().map(bind).collect()
}

/// Sockets that are bound but do not accept yet.
#[derive(Default)]
pub struct Prepared {
    bound: Vec<(Binding, Vec<TcpListener>)>,
}

/// Cheap to clone; `reload` tells it.
#[derive(Clone)]
pub struct Listeners {
    workers: Arc<Workers>,
    open: Arc<Mutex<BTreeMap<SocketAddr, Binding>>>,
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
        for binding in wanted.iter().filter(|it| !open.contains_key(&it.address)) {
            match bind_group(binding.address, self.workers.count()) {
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
            self.workers.listen(binding.address, sockets);
            open.insert(binding.address, binding);
        }
    }

    /// Closes what `wanted` no longer has; connections go on.
    pub fn dispose(&self, wanted: &[Binding]) {
        self.table().retain(|address, _| {
            let keep = wanted.iter().any(|it| it.address == *address);
            if !keep {
                self.workers.forget(*address);
            }
            keep
        });
    }

    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, Binding>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
