//! Connections of one worker, by endpoint. Not shared with other workers: no lock. Of the idle HTTP/1.1 connections the
//! newest goes out first, so that a quiet time lets the others grow old and be closed; of the HTTP/2 connections the
//! first that has a free stream, so that there are no more than it takes.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    ConnectError, Connection, Endpoint, Order, Protocol,
    client::{Client, Shared, Slot},
    connect,
    connection::{Carrier, Use},
    http1,
    stream::Stream,
};
use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared as Common, WeakShared},
};

/// Idle connections that one worker keeps to one endpoint.
const IDLE_MAX: usize = 256;
/// HTTP/2 connections of one worker to one endpoint; past this, requests queue for a stream.
const SHARED_MAX: usize = 8;
/// Streams that an endpoint is thought to allow at first; the specification asks for no fewer.
const STREAMS: usize = 100;

struct Idle {
    wire: http1::Shared<Stream>,
    until: Instant,
}

impl Idle {
    fn is_good(&self, now: Instant) -> bool {
        let mut wire = self.wire.borrow_mut();
        self.until > now && !wire.is_spent() && wire.is_quiet()
    }
}

/// Ids are numbers that we have given ourselves, one after the other: nobody can choose them so that they collide.
#[derive(Default)]
struct ById(u64);

impl Hasher for ById {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|it| self.write_u64(self.0 ^ u64::from(*it)));
    }

    fn write_u64(&mut self, id: u64) {
        // The table looks at the highest bits as well as at the lowest.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Opening = LocalBoxFuture<'static, Result<Rc<Shared>, ConnectError>>;

/// All pools of one worker.
#[derive(Default)]
pub struct Pools {
    idle: RefCell<HashMap<u64, Vec<Idle>, BuildHasherDefault<ById>>>,
    shared: RefCell<HashMap<u64, Vec<Rc<Shared>>>>,
    /// The connection that is being opened: whoever needs one meanwhile waits for the same.
    opening: RefCell<HashMap<u64, WeakShared<Opening>>>,
}

impl Pools {
    /// An idle connection that is known to be alive, if there is one.
    pub fn checkout(&self, endpoint: &Arc<Endpoint>, now: Instant) -> Option<Connection> {
        let mut pools = self.idle.borrow_mut();
        let pool = pools.get_mut(&endpoint.id)?;
        // One that is not free yet still sends the end of its last request: it stays for a later one.
        while let Some(newest) = pool.iter().rposition(|it| it.wire.borrow().is_free()) {
            let idle = pool.remove(newest);
            if idle.is_good(now) {
                return Some(Connection::new(Carrier::Own(idle.wire), endpoint, Use::Again));
            }
        }
        None
    }

    /// A connection with room for one more request: an idle one, a stream of a shared one, or a new one.
    pub async fn obtain(&self, endpoint: &Arc<Endpoint>, order: &Order) -> Result<Connection, ConnectError> {
        let for_one_client = order.transport.proxy_protocol().is_some();
        // Boxed, as all that is seldom done: the memory of every request would have room for it.
        if for_one_client {
            return Box::pin(self.connect(endpoint, order)).await;
        }
        match order.protocol {
            Protocol::Http1 => match self.checkout(endpoint, Instant::now()) {
                Some(connection) => Ok(connection),
                None => Box::pin(self.connect(endpoint, order)).await,
            },
            Protocol::Http2 => Box::pin(self.stream(endpoint, order)).await,
        }
    }

    /// A new connection that nobody else uses (yet).
    pub async fn connect(&self, endpoint: &Arc<Endpoint>, order: &Order) -> Result<Connection, ConnectError> {
        let carrier = match connect::connect(endpoint, order, STREAMS).await? {
            Client::Http1(wire) => Carrier::Own(wire),
            Client::Http2(shared) => Carrier::Shared(Slot::of(&shared)),
        };
        Ok(Connection::new(carrier, endpoint, Use::First))
    }

    async fn stream(&self, endpoint: &Arc<Endpoint>, order: &Order) -> Result<Connection, ConnectError> {
        let mut used = Use::Again;
        loop {
            if let Some(slot) = self.vacancy(endpoint.id) {
                return Ok(Connection::new(Carrier::Shared(slot), endpoint, used));
            }
            used = Use::First;
            let opened = self.opening(endpoint, order).await;
            self.opening.borrow_mut().retain(|_, it| it.upgrade().is_some_and(|it| it.peek().is_none()));
            self.adopt(endpoint, &opened?);
        }
    }

    /// A stream of the first connection that has one to spare; when there may be no more connections, of the one with
    /// the fewest.
    fn vacancy(&self, endpoint: u64) -> Option<Slot> {
        let mut pools = self.shared.borrow_mut();
        let pool = pools.get_mut(&endpoint)?;
        pool.retain(|it| it.is_open());
        if let Some(free) = pool.iter().find(|it| it.has_room()) {
            return Some(Slot::of(free));
        }
        let least = pool.iter().min_by_key(|it| it.streams()).filter(|_| pool.len() >= SHARED_MAX);
        least.map(Slot::of)
    }

    fn opening(&self, endpoint: &Arc<Endpoint>, order: &Order) -> Common<Opening> {
        let mut openings = self.opening.borrow_mut();
        let running = openings.get(&endpoint.id).and_then(WeakShared::upgrade).filter(|it| it.peek().is_none());
        running.unwrap_or_else(|| {
            let (wanted, order) = (endpoint.clone(), order.clone());
            // What it allows on one connection it will allow on the next, whose settings come a moment after its first use.
            let pools = self.shared.borrow();
            let known = pools.get(&endpoint.id).into_iter().flatten().map(|it| it.allowed()).min();
            let streams = known.unwrap_or(STREAMS).max(1);
            let opening: Opening = Box::pin(async move {
                match connect::connect(&wanted, &order, streams).await? {
                    Client::Http2(shared) => Ok(shared),
                    Client::Http1(_) => Err(ConnectError::Failed("it speaks HTTP/1.1".to_owned())),
                }
            });
            let opening = opening.shared();
            openings.extend(opening.downgrade().map(|it| (endpoint.id, it)));
            opening
        })
    }

    /// Keeps a shared connection, once, unless its endpoint was withdrawn meanwhile.
    fn adopt(&self, endpoint: &Endpoint, opened: &Rc<Shared>) {
        let mut pools = self.shared.borrow_mut();
        let pool = pools.entry(endpoint.id).or_default();
        if !pool.iter().any(|it| Rc::ptr_eq(it, opened)) {
            pool.push(opened.clone());
        }
    }

    /// Keeps a connection whose exchange ended cleanly, unless its endpoint was withdrawn meanwhile.
    pub fn checkin(&self, connection: Connection, idle_timeout: Duration) {
        let (carrier, endpoint) = connection.into_parts();
        // A shared connection is in its pool already: dropping the slot is all.
        let Carrier::Own(wire) = carrier else { return };
        if wire.borrow().is_spent() || endpoint.is_retired() || idle_timeout.is_zero() {
            return;
        }
        let mut pools = self.idle.borrow_mut();
        let pool = pools.entry(endpoint.id).or_default();
        if pool.len() >= IDLE_MAX {
            pool.remove(0);
        }
        pool.push(Idle { wire, until: Instant::now() + idle_timeout });
    }

    /// Closes all idle connections to an endpoint. A shared one closes by itself when its last stream has ended.
    pub fn close(&self, endpoint: u64) {
        self.idle.borrow_mut().remove(&endpoint);
        self.shared.borrow_mut().remove(&endpoint);
    }

    /// Closes what has been idle too long.
    pub fn sweep(&self) {
        http1::trim();
        let now = Instant::now();
        self.idle.borrow_mut().retain(|_, pool| {
            pool.retain(|it| it.is_good(now));
            !pool.is_empty()
        });
        self.shared.borrow_mut().retain(|_, pool| {
            pool.retain(|it| it.is_open() && !it.is_idle_too_long(now));
            !pool.is_empty()
        });
    }

    /// Connections that are kept for other requests.
    pub fn idle(&self, endpoint: &Endpoint) -> usize {
        let idle = self.idle.borrow().get(&endpoint.id).map_or(0, Vec::len);
        let shared = self.shared.borrow().get(&endpoint.id).map_or(0, Vec::len);
        idle + shared
    }
}
