//! One address that answers requests, with what is known of it: its health, and how many requests it has in flight.

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Shared by all workers. A new endpoint object is made for every publication, so `id` never comes back.
#[derive(Debug)]
pub struct Endpoint {
    pub id: u64,
    pub address: Address,
    /// What the operator wrote, or the instance's name: for logs and status.
    pub label: String,
    /// False until the first good check of an endpoint whose set is checked, and while checks fail.
    healthy: AtomicBool,
    /// Taken out by the operator: no new requests.
    drained: AtomicBool,
    /// Withdrawn for good: no new requests, ever.
    retired: AtomicBool,
    in_flight: AtomicUsize,
}

impl Endpoint {
    pub fn new(id: u64, address: Address, label: String, healthy: bool) -> Arc<Self> {
        Arc::new(Self {
            id,
            address,
            label,
            healthy: AtomicBool::new(healthy),
            drained: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
        })
    }

    /// Counts a request in, unless the endpoint has been withdrawn. The order matters: first count, then look, so that
    /// whoever withdraws it and then reads 0 knows that nobody is coming.
    pub fn enter(self: &Arc<Self>) -> Option<InFlight> {
        self.in_flight.fetch_add(1, SeqCst);
        let guard = InFlight(self.clone());
        (!self.retired.load(SeqCst)).then_some(guard)
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    pub fn is_routable(&self) -> bool {
        self.is_healthy() && !self.drained.load(SeqCst) && !self.is_retired()
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy.load(SeqCst)
    }

    pub fn is_drained(&self) -> bool {
        self.drained.load(SeqCst)
    }

    pub fn is_retired(&self) -> bool {
        self.retired.load(SeqCst)
    }

    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, SeqCst);
    }

    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained, SeqCst);
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, SeqCst);
    }
}

/// One request (or tunnel) on an endpoint; dropping it counts it out.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
    }
}
