//! A named set of endpoints, and why there is none when there is none. Workers pick without a lock; whoever owns the
//! set (the snapshot of a static one, the supervisor of an app's) is the only one to change its members.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};

use super::{Address, Endpoint, InFlight, Transport, balance, endpoint::Place, workers::Workers};

/// What a request that finds no endpoint is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Endpoints may be picked (or are all unhealthy: then `no-endpoint`).
    Serving,
    /// A start, a hold restart or a wake-up is under way: wait for it (bounded).
    Holding,
    /// The operator paused it: wait (bounded), even if there are endpoints.
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

/// What the configuration says of a set; replaced as a whole by a reload.
#[derive(Debug)]
pub(super) struct Settings {
    pub strategy: config::Strategy,
    pub health: config::Health,
    pub max_in_flight: Option<usize>,
    pub hold: config::Hold,
    /// Owned by an app, which publishes its endpoints itself.
    pub managed: bool,
    transport: Arc<Transport>,
    release: Arc<Semaphore>,
}

impl Settings {
    pub(super) fn new(proxy: &config::Proxy, hold: Option<&config::Hold>, transport: Arc<Transport>) -> Self {
        let bounds = hold.cloned().unwrap_or(config::Hold {
            max_requests: 512,
            timeout: Duration::from_secs(30),
            release_concurrency: 64,
            on_start: true,
        });
        Self {
            strategy: proxy.strategy,
            health: proxy.health.clone(),
            max_in_flight: proxy.max_in_flight,
            managed: hold.is_some() || proxy.urls.is_empty(),
            transport,
            release: Arc::new(Semaphore::new(bounds.release_concurrency.max(1))),
            hold: bounds,
        }
    }

    /// Without a check, an endpoint is only suspected to be down: never all of them at once.
    fn fails_open(&self) -> bool {
        self.managed || self.health.path.is_none()
    }
}

/// The endpoints behind one site. Workers pick, one owner publishes (static: snapshot; managed: the app's supervisor).
pub struct Set {
    name: Arc<str>,
    settings: ArcSwap<Settings>,
    members: ArcSwap<Vec<Arc<Endpoint>>>,
    availability: Mutex<Availability>,
    /// Paused or stopped: endpoints, if any, are not to be used. Kept apart so that a pick takes no lock.
    barred: AtomicBool,
    fail_open: AtomicBool,
    version: watch::Sender<u64>,
    wanted: AtomicBool,
    demand: Notify,
    held: AtomicUsize,
    /// Requests that got an endpoint and are no reason to stay awake, and how many of them wait for their answer.
    strays: AtomicU64,
    straying: AtomicUsize,
    turn: AtomicUsize,
    idle_timeout_ms: AtomicU64,
    workers: Arc<Workers>,
}

impl Set {
    pub(super) fn new(name: &str, settings: Settings, workers: Arc<Workers>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            members: ArcSwap::default(),
            availability: Mutex::new(Availability::Serving),
            barred: AtomicBool::new(false),
            fail_open: AtomicBool::new(settings.fails_open()),
            settings: ArcSwap::from_pointee(settings),
            version: watch::Sender::new(0),
            wanted: AtomicBool::new(false),
            demand: Notify::new(),
            held: AtomicUsize::new(0),
            strays: AtomicU64::new(0),
            straying: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            idle_timeout_ms: AtomicU64::new(60_000),
            workers,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    pub(super) fn configure(&self, settings: Settings) {
        let before = self.settings.load();
        if before.managed != settings.managed || !settings.managed {
            self.fail_open.store(settings.fails_open(), Relaxed);
        }
        let is_spoken_to_otherwise = !Arc::ptr_eq(&before.transport, &settings.transport);
        let stays_static = !before.managed && !settings.managed;
        if before.managed != settings.managed {
            // It has a new owner, which publishes its own.
            self.endpoints().iter().for_each(|it| self.discard(it));
            self.set_availability(Availability::Serving);
        }
        self.settings.store(Arc::new(settings));
        if is_spoken_to_otherwise && stays_static {
            self.renew();
        }
    }

    /// New endpoints in the place of the old ones, so that no connection of the old kind is used again.
    fn renew(&self) {
        for endpoint in self.endpoints() {
            let renewed = self.publish_at(endpoint.place(), endpoint.is_healthy());
            renewed.set_drained(endpoint.is_drained());
            self.discard(&endpoint);
        }
    }

    /// How its endpoints are spoken to.
    pub fn transport(&self) -> Arc<Transport> {
        self.settings.load().transport.clone()
    }

    /// An app owns it.
    pub fn is_managed(&self) -> bool {
        self.settings.load().managed
    }

    /// Chooses by the set's strategy among the routable endpoints that are not in `tried`.
    /// All unhealthy but alive: fail open when the set says so (managed apps), else `NoEndpoint`.
    pub fn pick(&self, client: IpAddr, tried: &[u64]) -> Result<Picked, Unavailable> {
        let settings = self.settings.load();
        while !self.barred.load(Relaxed) {
            let members = self.members.load();
            let over = |max| members.iter().map(|it| it.in_flight()).sum::<usize>() >= max;
            if settings.max_in_flight.is_some_and(over) {
                return Err(Unavailable::NoEndpoint);
            }
            let Some(endpoint) = self.choose(settings.strategy, &members, client, tried) else { break };
            // None: withdrawn since the members were read, so they have changed by now or will in a moment.
            if let Some(in_flight) = endpoint.enter() {
                return Ok(Picked { in_flight });
            }
        }
        match self.availability() {
            // An app serves with nothing only between two steps of its supervisor: that is a hold, too.
            Availability::Serving if settings.managed && self.members.load().is_empty() => {
                Err(Unavailable::Wait(Availability::Holding))
            }
            Availability::Serving => Err(Unavailable::NoEndpoint),
            other => Err(Unavailable::Wait(other)),
        }
    }

    fn choose<'a>(
        &self,
        strategy: config::Strategy,
        members: &'a [Arc<Endpoint>],
        client: IpAddr,
        tried: &[u64],
    ) -> Option<&'a Arc<Endpoint>> {
        let turn = self.turn.fetch_add(1, Relaxed);
        let load = |it: &&Arc<Endpoint>| it.in_flight();
        let candidates = members.iter().filter(|it| it.is_routable() && !tried.contains(&it.id));
        let chosen = match strategy {
            config::Strategy::RoundRobin => balance::round_robin(candidates, turn),
            // Response times are not measured yet; fewest in flight is the nearest thing.
            config::Strategy::LeastConn | config::Strategy::LeastTime => balance::least(candidates, turn, load),
            config::Strategy::RandomTwo => balance::two_choices(candidates, fastrand::u64(..), load),
            config::Strategy::IpHash => balance::rendezvous(candidates, balance::client_key(client), |it| it.affinity),
        };
        let open =
            |it: &&Arc<Endpoint>| it.is_proven() && !it.is_drained() && !it.is_retired() && !tried.contains(&it.id);
        chosen.or_else(|| {
            self.fail_open.load(Relaxed).then(|| balance::round_robin(members.iter().filter(open), turn)).flatten()
        })
    }

    pub fn availability(&self) -> Availability {
        self.availability.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resolves when availability or the members change after this call was made; wakes across threads.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut version = self.version.subscribe();
        async move {
            let _ = version.changed().await;
        }
    }

    /// Asks for a set that is `Idle`.
    pub fn demand(&self) {
        if !self.wanted.swap(true, Relaxed) {
            self.demand.notify_one();
        }
    }

    /// A place in the hold, or none when it is full.
    pub fn enter_hold(self: &Arc<Self>) -> Option<Held> {
        let max = self.settings.load().hold.max_requests;
        self.held.fetch_update(Relaxed, Relaxed, |it| (it < max).then_some(it + 1)).ok()?;
        Some(Held(self.clone()))
    }

    pub fn hold_timeout(&self) -> Duration {
        self.settings.load().hold.timeout
    }

    /// The request that just got an endpoint would not have woken the app. To be dropped when its answer begins.
    pub fn enter_stray(self: &Arc<Self>) -> Stray {
        self.strays.fetch_add(1, Relaxed);
        self.straying.fetch_add(1, Relaxed);
        Stray(self.clone())
    }

    /// All there were, and those that wait for their answer.
    pub fn strays(&self) -> (u64, usize) {
        (self.strays.load(Relaxed), self.straying.load(Relaxed))
    }

    /// Permits that held requests take in order when the hold ends, so that a cold app is not flooded.
    pub fn release(&self) -> Arc<Semaphore> {
        self.settings.load().release.clone()
    }

    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms.load(Relaxed))
    }

    /// An endpoint refused a connection: the prober looks at it at once.
    pub fn suspect(&self, endpoint: &Arc<Endpoint>) {
        endpoint.failed();
        let others = self.members.load().iter().any(|it| it.id != endpoint.id && it.is_routable());
        // The last one is never taken out on a mere suspicion: an error from it says more than "no endpoint".
        if !self.is_managed() && others {
            endpoint.set_healthy(false);
        }
        self.workers.suspected();
    }

    // === The owner's side ===

    /// Adds an endpoint; it gets requests at once when `healthy`.
    pub fn publish(&self, address: Address, label: String, healthy: bool) -> Arc<Endpoint> {
        self.publish_at(Place { address, alternates: Vec::new(), label, tls_name: None }, healthy)
    }

    pub(super) fn publish_at(&self, place: Place, healthy: bool) -> Arc<Endpoint> {
        let endpoint = Endpoint::at(self.workers.next_id(), place, healthy);
        self.members.rcu(|it| it.iter().cloned().chain([endpoint.clone()]).collect::<Vec<_>>());
        self.bump();
        endpoint
    }

    /// Withdraws an endpoint: no new request enters; every worker closes its idle connections to it and says so.
    /// Resolves when that is done and in-flight is 0, or after `drain_timeout` (false: some were still running).
    pub async fn withdraw(&self, endpoint: &Arc<Endpoint>, drain_timeout: Duration) -> bool {
        self.retire(endpoint);
        self.workers.close(endpoint.id).await;
        tokio::time::timeout(drain_timeout, endpoint.emptied()).await.is_ok()
    }

    /// The first step of a withdrawal, which needs no runtime.
    pub(super) fn retire(&self, endpoint: &Arc<Endpoint>) {
        endpoint.retire();
        self.members.rcu(|it| it.iter().filter(|it| it.id != endpoint.id).cloned().collect::<Vec<_>>());
        self.bump();
    }

    /// Withdraws without waiting for what is in flight, which goes on.
    pub(super) fn discard(&self, endpoint: &Arc<Endpoint>) {
        self.retire(endpoint);
        self.workers.forget(endpoint.id);
    }

    pub fn set_availability(&self, availability: Availability) {
        self.barred.store(matches!(availability, Availability::Paused | Availability::Stopped), Relaxed);
        if availability == Availability::Idle {
            // What was asked for before it slept has been answered.
            self.wanted.store(false, Relaxed);
        }
        *self.availability.lock().unwrap_or_else(PoisonError::into_inner) = availability;
        self.bump();
    }

    /// Whether endpoints are used when all of them are unhealthy.
    pub fn set_on_all_unready(&self, policy: config::OnAllUnready) {
        self.fail_open.store(policy == config::OnAllUnready::Serve, Relaxed);
    }

    /// How long a connection may be idle in a pool: less than the app itself keeps it, or reuse races with its close.
    pub fn set_idle_timeout(&self, timeout: Duration) {
        self.idle_timeout_ms.store(timeout.as_millis() as u64, Relaxed);
    }

    /// Resolves when a request asks for a set that is `Idle`.
    pub async fn demanded(&self) {
        while !self.wanted.load(Relaxed) {
            self.demand.notified().await;
        }
        self.wanted.store(false, Relaxed);
    }

    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.members.load().to_vec()
    }

    /// Requests waiting in hold now.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    fn bump(&self) {
        self.version.send_modify(|it| *it += 1);
    }
}

/// A request that would not have woken the app waits for its answer.
pub struct Stray(Arc<Set>);

impl Drop for Stray {
    fn drop(&mut self) {
        self.0.straying.fetch_sub(1, Relaxed);
    }
}

/// A request in the hold; dropping it frees the place.
pub struct Held(Arc<Set>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}
