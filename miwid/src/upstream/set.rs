//! A named set of endpoints, and why there is none when there is none.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{Address, Endpoint, InFlight};

/// What a request that finds no endpoint is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Endpoints may be picked (or are all unhealthy: then `no-endpoint`).
    Serving,
    /// A start, a hold restart or a wake-up is under way: wait for it (bounded).
    Holding,
    /// The operator paused it: wait (bounded).
    Paused,
    /// Scaled to zero: ask for it with `demand`, then wait.
    Idle,
    /// The operator stopped it: 503 `app-stopped`.
    Stopped,
    /// It does not start; next attempt in so long: 503 `app-failed` with Retry-After.
    Failed { retry_after: Duration },
}

/// An endpoint to send this request to, already counted in.
#[derive(Debug)]
pub struct Picked {
    pub in_flight: InFlight,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// No endpoint, or none healthy.
    NoEndpoint,
    /// Look at `availability()` and wait for it to change.
    Wait(Availability),
}

/// The endpoints behind one site. Workers pick, one owner publishes (static: snapshot; managed: the app's supervisor).
pub struct Set {}

impl Set {
    pub fn name(&self) -> &str {
        ""
    }

    /// Chooses by the set's strategy among the routable endpoints that are not in `tried`.
    /// All unhealthy but alive: fail open when the set says so (managed apps), else `NoEndpoint`.
    pub fn pick(&self, client: IpAddr, tried: &[u64]) -> Result<Picked, Unavailable> {
        let _ = (client, tried);
        Err(Unavailable::NoEndpoint)
    }

    pub fn availability(&self) -> Availability {
        Availability::Serving
    }

    /// Resolves when availability or the members change after this call was made; wakes across threads.
    pub async fn changed(&self) {}

    // === The owner's side ===

    /// Adds an endpoint; it gets requests at once when `healthy`.
    pub fn publish(&self, address: Address, label: String, healthy: bool) -> Arc<Endpoint> {
        Endpoint::new(0, address, label, healthy)
    }

    /// Withdraws an endpoint: no new request enters; every worker closes its idle connections to it and says so.
    /// Resolves when that is done and in-flight is 0, or after `drain_timeout` (false: some were still running).
    pub async fn withdraw(&self, endpoint: &Arc<Endpoint>, drain_timeout: Duration) -> bool {
        let _ = (endpoint, drain_timeout);
        true
    }

    pub fn set_availability(&self, availability: Availability) {
        let _ = availability;
    }

    /// Resolves when a request asks for a set that is `Idle`.
    pub async fn demanded(&self) {}

    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        Vec::new()
    }

    /// Requests waiting in hold now.
    pub fn held(&self) -> usize {
        0
    }
}
