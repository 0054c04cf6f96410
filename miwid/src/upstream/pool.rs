//! Idle connections of one worker, by endpoint. Not shared: no lock. The newest goes out first, so that a quiet time
//! lets the others grow old and be closed.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1::SendRequest},
};

use super::{ConnectError, Endpoint, connect};
use crate::exchange::Body;

/// Idle connections that one worker keeps to one endpoint.
const IDLE_MAX: usize = 256;

/// A connection to an endpoint, ready for a request.
pub struct Connection {
    sender: SendRequest<Body>,
    endpoint: Arc<Endpoint>,
    reused: bool,
}

impl Connection {
    /// Has carried a request before: the other end may be closing it this very moment.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The request comes back in the error when nothing of it was sent.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        self.sender.try_send_request(request).await
    }
}

struct Idle {
    sender: SendRequest<Body>,
    until: Instant,
}

/// All pools of one worker.
#[derive(Default)]
pub struct Pools {
    idle: RefCell<HashMap<u64, Vec<Idle>>>,
}

impl Pools {
    /// An idle connection that is known to be alive, if there is one.
    pub fn checkout(&self, endpoint: &Arc<Endpoint>) -> Option<Connection> {
        let mut pools = self.idle.borrow_mut();
        let pool = pools.get_mut(&endpoint.id)?;
        let now = Instant::now();
        pool.retain(|it| !it.sender.is_closed() && it.until > now);
        // One that is not ready yet still finishes its last exchange: it stays for the next request.
        let newest = pool.iter().rposition(|it| it.sender.is_ready())?;
        let sender = pool.remove(newest).sender;
        Some(Connection { sender, endpoint: endpoint.clone(), reused: true })
    }

    pub async fn connect(&self, endpoint: &Arc<Endpoint>, timeout: Duration) -> Result<Connection, ConnectError> {
        let sender = connect::connect(endpoint, timeout).await?;
        Ok(Connection { sender, endpoint: endpoint.clone(), reused: false })
    }

    /// Keeps a connection whose exchange ended cleanly, unless its endpoint was withdrawn meanwhile.
    pub fn checkin(&self, connection: Connection, idle_timeout: Duration) {
        let Connection { sender, endpoint, .. } = connection;
        if sender.is_closed() || endpoint.is_retired() || idle_timeout.is_zero() {
            return;
        }
        let mut pools = self.idle.borrow_mut();
        let pool = pools.entry(endpoint.id).or_default();
        if pool.len() >= IDLE_MAX {
            pool.remove(0);
        }
        pool.push(Idle { sender, until: Instant::now() + idle_timeout });
    }

    /// Closes all idle connections to an endpoint.
    pub fn close(&self, endpoint: u64) {
        self.idle.borrow_mut().remove(&endpoint);
    }

    /// Closes what has been idle too long.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.idle.borrow_mut().retain(|_, pool| {
            pool.retain(|it| !it.sender.is_closed() && it.until > now);
            !pool.is_empty()
        });
    }

    pub fn idle(&self, endpoint: &Endpoint) -> usize {
        self.idle.borrow().get(&endpoint.id).map_or(0, Vec::len)
    }
}
