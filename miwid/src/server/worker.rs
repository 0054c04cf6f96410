//! A worker: one thread, one runtime, its own accepting sockets, pools, counters and log buffer. A request touches no
//! other core and takes no lock that another core can hold across I/O.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc,
    task::JoinHandle,
};

#[cfg(feature = "http3")]
use super::http3;
use super::{
    clock::Clock,
    connection::{self, Arrival, contained},
    front::{READ_BYTES, WRITE_BYTES},
    listeners::{Key, Kind, Socket},
    shelf::Shelf,
};
#[cfg(feature = "http3")]
use crate::net::SteeredIds;
use crate::{
    builtin::Pages,
    encoding::Budget,
    files::Cache,
    net::{Acceptor, Admission, Bell, Drain, DrainSignal},
    proxy::Tunnels,
    snapshot::{Current, Snapshot},
    telemetry::{AccessBuffer, AccessLog, Metrics, Readiness, Shard},
    upstream::{Directory, Feed, Pools},
};

/// How often a worker shows that it lives and hands over its log lines.
const TICK: Duration = Duration::from_secs(1);

/// Connections whose listener has gone, while the daemon stays, have so long to ask once more.
const COURTESY: Duration = Duration::from_secs(2);
/// How often is looked whether the workers have ended.
const LOOK: Duration = Duration::from_millis(50);

/// What every worker is given.
#[derive(Clone)]
pub struct Shared {
    pub current: Current,
    pub directory: Directory,
    pub access: AccessLog,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub pages: Pages,
    pub admission: Admission,
}

enum Order {
    Listen(Key, Socket),
    Forget(Key, Duration),
    Finish,
}

/// All worker threads, as their owner steers them.
pub struct Workers {
    orders: Vec<mpsc::UnboundedSender<Order>>,
    drain: Arc<Drain>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    pub fn start(count: usize, shared: &Shared) -> io::Result<Self> {
        let (drain, signal) = Drain::new();
        let mut workers = Self { orders: Vec::new(), drain, threads: Vec::new() };
        for index in 0..count {
            // Bounded by the number of listeners: orders come from reloads only.
            let (orders, inbox) = mpsc::unbounded_channel();
            let (shared, signal, feed) = (shared.clone(), signal.clone(), shared.directory.worker());
            let work = move || match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime.block_on(run(index, shared, feed, inbox, signal)),
                Err(error) => tracing::error!(%error, index, "worker cannot start"),
            };
            let thread = thread::Builder::new().name(format!("miwid-worker-{index}")).spawn(work)?;
            workers.orders.push(orders);
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    pub fn count(&self) -> usize {
        self.orders.len()
    }

    /// One socket for each worker; more of them when another engine, with more workers, had opened them.
    pub(super) fn listen(&self, key: Key, sockets: Vec<Socket>) {
        for (orders, socket) in self.orders.iter().cycle().zip(sockets) {
            // A worker that is gone was reported when it went.
            let _ = orders.send(Order::Listen(key, socket));
        }
    }

    /// Its connections have until `deadline`.
    pub(super) fn forget(&self, key: Key, deadline: Duration) {
        for orders in &self.orders {
            let _ = orders.send(Order::Forget(key, deadline));
        }
    }

    /// No new connections. Those that are open end when they have their answers, tunnels when their ends want it; true when
    /// all have, within `patience`. `drain` may follow.
    pub async fn finished(&self, patience: Duration) -> bool {
        for orders in &self.orders {
            let _ = orders.send(Order::Finish);
        }
        let ended = async {
            while !self.threads.iter().all(thread::JoinHandle::is_finished) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(patience, ended).await.is_ok()
    }

    /// No new connections; those that are open finish what they do. True when all have, within `deadline`.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.drain.start(deadline);
        tokio::time::timeout(deadline, self.drain.finished()).await.is_ok()
    }
}

/// One worker's own state. Everything here is touched by its thread alone.
pub(super) struct Worker {
    snapshot: RefCell<arc_swap::Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    pub(super) pools: Rc<Pools>,
    pub(super) tunnels: Tunnels,
    pub(super) files: Cache,
    pub(super) shelf: Shelf,
    pub(super) clock: Clock,
    /// One read and one answer at a time: the worker is one thread.
    pub(super) read_buffer: RefCell<Box<[u8]>>,
    pub(super) write_buffer: RefCell<Box<[u8]>>,
    /// Open over TCP.
    pub(super) connections: Cell<usize>,
    /// What encoders may take.
    pub(super) encoders: Budget,
    pub(super) access: RefCell<AccessBuffer>,
    pub(super) shard: Arc<Shard>,
    pub(super) metrics: Metrics,
    pub(super) pages: Pages,
    pub(super) admission: Admission,
    /// What HTTPS answers say of HTTP/3, while this worker serves it.
    pub(super) alternative: RefCell<Option<HeaderValue>>,
}

impl Worker {
    /// The configuration as of now; an exchange takes it once.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow_mut().load().clone()
    }
}

async fn run(index: usize, shared: Shared, feed: Feed, inbox: mpsc::UnboundedReceiver<Order>, drain: DrainSignal) {
    let worker = Rc::new(Worker {
        snapshot: RefCell::new(shared.current.cached()),
        pools: Rc::default(),
        tunnels: Tunnels::new(drain.clone()),
        files: Cache::default(),
        shelf: Shelf::default(),
        clock: Clock::default(),
        read_buffer: RefCell::new(vec![0; READ_BYTES].into()),
        write_buffer: RefCell::new(vec![0; WRITE_BYTES].into()),
        connections: Cell::new(0),
        encoders: Budget::default(),
        access: RefCell::new(shared.access.buffer()),
        shard: shared.metrics.shard(),
        metrics: shared.metrics.clone(),
        pages: shared.pages.clone(),
        admission: shared.admission.clone(),
        alternative: RefCell::default(),
    });
    let feed = tokio::task::spawn_local(feed.run(worker.pools.clone()));
    let tick = tokio::task::spawn_local(tick(index, worker.clone(), shared.readiness));
    obey(&worker, inbox, drain).await;
    feed.abort();
    tick.abort();
    worker.access.borrow_mut().flush();
}

async fn tick(index: usize, worker: Rc<Worker>, readiness: Readiness) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        readiness.heartbeat(index);
        worker.access.borrow_mut().flush();
        worker.files.sweep();
        worker.shelf.align(&worker.snapshot());
        worker.shelf.sweep(Instant::now());
    }
}

/// One listener of one worker. Its connections hear from it when they should go: it was taken out, or everything ends.
struct Listening {
    task: JoinHandle<()>,
    leave: Arc<Drain>,
}

/// Opens and closes listeners until draining; then waits for the last connection, whose drop of its sender ends this.
async fn obey(worker: &Rc<Worker>, mut inbox: mpsc::UnboundedReceiver<Order>, mut drain: DrainSignal) {
    let mut listeners: HashMap<Key, Vec<Listening>> = HashMap::new();
    let (connections, mut open) = mpsc::channel::<()>(1);
    loop {
        let order = tokio::select! {
            order = inbox.recv() => order,
            () = drain.started() => None,
        };
        match order {
            Some(Order::Listen(key, socket)) => {
                listeners.entry(key).or_default().push(open_listener(worker, key, socket, &connections));
            }
            Some(Order::Forget(key, deadline)) => {
                listeners.remove(&key).unwrap_or_default().iter().for_each(|it| it.leave.start(deadline));
                if key.1 == Kind::Http3 && !listeners.keys().any(|it| it.1 == Kind::Http3) {
                    worker.alternative.replace(None);
                    worker.shelf.clear();
                }
            }
            Some(Order::Finish) | None => break,
        }
    }
    let deadline = if drain.has_started() { drain.deadline() } else { Duration::MAX };
    listeners.values().flatten().for_each(|it| it.leave.start(deadline));
    drop(connections);
    let _ = open.recv().await;
    for listener in listeners.into_values().flatten() {
        let _ = listener.task.await;
    }
    worker.tunnels.ended().await;
}

fn open_listener(worker: &Rc<Worker>, key: Key, socket: Socket, connections: &mpsc::Sender<()>) -> Listening {
    let ((leave, drain), connections) = (Drain::new(), connections.clone());
    let task = match socket {
        Socket::Tcp(socket) => tokio::task::spawn_local(listen(worker.clone(), key.1, socket, drain, connections)),
        #[cfg(feature = "http3")]
        Socket::Udp { socket, index, count } => {
            let alternative = format!("h3=\":{}\"; ma=86400", key.0.port());
            worker.alternative.replace(HeaderValue::from_str(&alternative).ok());
            worker.shelf.clear();
            let ids = SteeredIds::new(index, count);
            tokio::task::spawn_local(http3::listen(worker.clone(), ids, socket, drain, connections))
        }
    };
    Listening { task, leave }
}

async fn listen(
    worker: Rc<Worker>,
    kind: Kind,
    socket: std::net::TcpListener,
    mut drain: DrainSignal,
    open: mpsc::Sender<()>,
) {
    let acceptor = match Acceptor::new(socket, worker.admission.clone()) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "listener lost"),
    };
    let (bell, local) = (Bell::default(), acceptor.local());
    let spawn = |(stream, remote, permit)| {
        let (worker, open) = (worker.clone(), open.clone());
        let serving = connection::serve(&worker, Arrival { stream, remote, local, kind, bell: bell.clone() });
        tokio::task::spawn_local(async move {
            worker.shard.connection_opened();
            worker.connections.update(|it| it + 1);
            contained(&worker.metrics, serving).await;
            worker.connections.update(|it| it - 1);
            worker.shard.connection_closed();
            drop((permit, open));
        });
    };
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted,
            () = drain.started() => break,
        };
        match accepted {
            Ok(accepted) => spawn(accepted),
            Err(error) => return tracing::error!(%error, "listener lost"),
        }
    }
    // What the kernel has accepted for us is ours to answer: closing the socket would reset it.
    while let Ok(Ok(accepted)) = tokio::time::timeout(Duration::ZERO, acceptor.accept()).await {
        spawn(accepted);
    }
    drop(acceptor);
    if drain.deadline() == Duration::MAX {
        // Nobody waits for these connections: a request that is on its way now still gets its answer.
        bell.announce();
        tokio::time::sleep(COURTESY).await;
    }
    bell.ring();
}
