//! One address that answers requests, with what is known of it: its health, and how many requests it has in flight.

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use http::HeaderValue;
use rustls::pki_types::ServerName;
use tokio::sync::{Notify, watch};

use super::balance;

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

/// Where an endpoint is, and who it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub address: Address,
    pub alternates: Vec<SocketAddr>,
    pub label: String,
    pub tls_name: Option<ServerName<'static>>,
}

impl Place {
    fn hosts(&self) -> Option<(HeaderValue, HeaderValue)> {
        let Address::Tcp(address) = self.address else { return None };
        // The label of a resolved address is `name:port address`.
        let name = self.label.split(' ').next()?;
        let default_port = if self.tls_name.is_some() { ":443" } else { ":80" };
        let named = HeaderValue::from_str(name.strip_suffix(default_port).unwrap_or(name)).ok()?;
        Some((named, HeaderValue::from_str(&address.to_string()).ok()?))
    }
}

/// Shared by all workers. A new endpoint object is made for every publication, so `id` never comes back.
#[derive(Debug)]
pub struct Endpoint {
    pub id: u64,
    pub address: Address,
    /// The address as it is written, for logs.
    pub text: Arc<str>,
    /// What goes into `Host`: the name that the operator wrote, and the address of an app's instance. A unix socket has none.
    hosts: Option<(HeaderValue, HeaderValue)>,
    /// What the operator wrote, or the instance's name: for logs and status.
    pub label: String,
    /// Tried in turn when `address` refuses: `localhost` is 127.0.0.1, but some servers listen on ::1 alone.
    pub alternates: Vec<SocketAddr>,
    /// Spoken to over TLS, with a certificate for this name.
    pub(super) tls_name: Option<ServerName<'static>>,
    /// What a client's hash is weighed against: from the label, so that it survives a restart of the instance.
    pub(super) affinity: u64,
    /// False until the first good check of an endpoint whose set is checked, and while checks fail.
    healthy: AtomicBool,
    /// Taken out by the operator: no new requests.
    drained: AtomicBool,
    /// Withdrawn for good: no new requests, ever.
    retired: AtomicBool,
    /// The same for those who wait for it; the flag beside it is what requests read, without a lock.
    retirement: watch::Sender<bool>,
    /// Has been healthy once: only then is it served when all are unhealthy.
    proven: AtomicBool,
    in_flight: AtomicUsize,
    requests: AtomicU64,
    failures: AtomicU64,
    /// Rung when the last request of a retired endpoint has gone.
    emptied: Notify,
}

impl Endpoint {
    pub fn new(id: u64, address: Address, label: String, healthy: bool) -> Arc<Self> {
        Self::at(id, Place { address, alternates: Vec::new(), label, tls_name: None }, healthy)
    }

    pub(super) fn at(id: u64, place: Place, healthy: bool) -> Arc<Self> {
        let hosts = place.hosts();
        let Place { address, alternates, label, tls_name } = place;
        Arc::new(Self {
            id,
            text: address.to_string().into(),
            hosts,
            address,
            alternates,
            tls_name,
            affinity: balance::affinity(&label),
            label,
            proven: AtomicBool::new(healthy),
            healthy: AtomicBool::new(healthy),
            drained: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            retirement: watch::Sender::new(false),
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            emptied: Notify::new(),
        })
    }

    pub(super) fn place(&self) -> Place {
        Place {
            address: self.address.clone(),
            alternates: self.alternates.clone(),
            label: self.label.clone(),
            tls_name: self.tls_name.clone(),
        }
    }

    /// Its own name; `None` for a unix socket, where the site's is kept. The label of a managed one is its instance's.
    pub fn host(&self, managed: bool) -> Option<&HeaderValue> {
        self.hosts.as_ref().map(|(named, addressed)| if managed { addressed } else { named })
    }

    /// Is spoken to over TLS.
    pub fn is_secure(&self) -> bool {
        self.tls_name.is_some()
    }

    /// Counts a request in, unless the endpoint has been withdrawn. The order matters: first count, then look, so that
    /// whoever withdraws it and then reads 0 knows that nobody is coming.
    pub fn enter(self: &Arc<Self>) -> Option<InFlight> {
        self.in_flight.fetch_add(1, SeqCst);
        let guard = InFlight(self.clone());
        if self.is_retired() {
            return None;
        }
        self.requests.fetch_add(1, Relaxed);
        Some(guard)
    }

    /// Requests sent here since it was published.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Requests that got no answer from here.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
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

    /// Has been healthy at least once.
    pub fn is_proven(&self) -> bool {
        self.proven.load(SeqCst)
    }

    /// Resolves when the endpoint has been withdrawn: a tunnel that is still open then ends as `stream_drain` says.
    pub fn retired(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut retired = self.retirement.subscribe();
        async move {
            let _ = retired.wait_for(|it| *it).await;
        }
    }

    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, SeqCst);
        if healthy {
            self.proven.store(true, SeqCst);
        }
    }

    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained, SeqCst);
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, SeqCst);
        self.retirement.send_replace(true);
    }

    /// Resolves when nothing is in flight any more. Only after `retire`: before it, requests come and go unnoticed.
    pub(super) async fn emptied(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            // Registered before looking, or the last request could go between the look and the wait.
            emptied.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            emptied.await;
        }
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
        if self.0.in_flight.fetch_sub(1, SeqCst) == 1 && self.0.is_retired() {
            self.0.emptied.notify_waiters();
        }
    }
}
