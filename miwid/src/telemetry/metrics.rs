//! The counters. A worker counts in its own shard (relaxed, no lock, no other writer); the shards are summed when
//! somebody scrapes. Names, help and text are in `exposition`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::exposition::{Gauges, Sums};

/// Everything else is `OTHER`: a client must not be able to make new time series.
pub(super) const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "OTHER"];
/// 100 to 599; what lies outside is counted as 599.
pub(super) const STATUSES: usize = 500;
/// Upper bounds of the latency histogram, in microseconds.
pub(super) const BUCKETS: [u64; 13] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// How a TLS handshake over TCP or QUIC ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    Full,
    /// The client had to begin again with another key share.
    FullRetry,
    Resumed,
    UnknownName,
    Failed,
    Timeout,
}

/// The labels, in the order of `Handshake`.
pub(super) const HANDSHAKES: [&str; 6] = ["full", "full-retry", "resumed", "unknown-name", "failed", "timeout"];

/// What a policy refuses, or would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Denied,
    RateLimit,
    Csrf,
}

/// The labels, in the order of `Refused`.
pub(super) const REFUSED: [&str; 3] = ["denied", "rate-limit", "csrf"];

/// What answers can be compressed with.
pub(super) const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

type OnScrape = Box<dyn Fn(&mut Gauges) + Send + Sync>;

/// The registry: shards of the workers, gauges of everyone else. Cheap to clone.
#[derive(Clone, Default)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    shards: Mutex<Vec<Arc<Shard>>>,
    on_scrape: Mutex<Vec<OnScrape>>,
    reloads: Mutex<BTreeMap<&'static str, u64>>,
    dropped: Mutex<BTreeMap<String, u64>>,
    cut: Mutex<BTreeMap<&'static str, u64>>,
    certificate_requests: Mutex<BTreeMap<&'static str, u64>>,
    panics: AtomicU64,
}

impl Metrics {
    /// A new shard; each worker takes one.
    pub fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::default());
        lock(&self.inner.shards).push(Arc::clone(&shard));
        shard
    }

    /// The text exposition (Prometheus 0.0.4), which `promtool check metrics` accepts.
    pub fn exposition(&self) -> String {
        if cfg!(not(feature = "metrics")) {
            return "# built without metrics\n".to_owned();
        }
        let mut gauges = Gauges::default();
        for ask in lock(&self.inner.on_scrape).iter() {
            ask(&mut gauges);
        }
        super::exposition::render(&self.sums(), &gauges)
    }

    /// Connections open now, idle now, and accepted since the start.
    pub fn connections(&self) -> (u64, u64, u64) {
        let sums = self.sums();
        (sums.opened.saturating_sub(sums.closed), sums.idle, sums.opened)
    }

    /// Requests that were answered, and those of them that got an error of 500 or more that is ours.
    pub fn answers(&self) -> (u64, u64) {
        let sums = self.sums();
        (sums.requests.values().sum(), sums.faults)
    }

    /// `ask` is called at every scrape and sets the gauges of its room. It must not block.
    pub fn on_scrape(&self, ask: OnScrape) {
        lock(&self.inner.on_scrape).push(ask);
    }

    /// `result`: `applied`, `refused`, `failed`.
    pub fn reload(&self, result: &'static str) {
        *lock(&self.inner.reloads).entry(result).or_default() += 1;
    }

    /// `result`: `issued`, `adopted`, `found`, or the class of the failure.
    pub fn certificate_request(&self, result: &'static str) {
        *lock(&self.inner.certificate_requests).entry(result).or_default() += 1;
    }

    pub fn log_dropped(&self, log: &str, lines: u64) {
        *lock(&self.inner.dropped).entry(log.to_owned()).or_default() += lines;
    }

    /// A connection was ended because of what its client did (`kind`: `rapid-reset`, `ping-flood`, `slow-head` ...).
    pub fn connection_cut(&self, kind: &'static str) {
        *lock(&self.inner.cut).entry(kind).or_default() += 1;
    }

    /// A panic ended a request or a task.
    pub fn panicked(&self) {
        self.inner.panics.fetch_add(1, Ordering::Relaxed);
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums {
            reloads: lock(&self.inner.reloads).clone(),
            dropped: lock(&self.inner.dropped).clone(),
            cut: lock(&self.inner.cut).clone(),
            certificate_requests: lock(&self.inner.certificate_requests).clone(),
            panics: self.inner.panics.load(Ordering::Relaxed),
            ..Sums::default()
        };
        for shard in lock(&self.inner.shards).iter() {
            shard.add_to(&mut sums);
        }
        sums
    }
}

/// Counters of one worker.
pub struct Shard {
    /// One for each method and status.
    requests: Box<[AtomicU64]>,
    /// One for each bound, and one for what is slower than all.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
    faults: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    idle: AtomicU64,
    shelved: AtomicU64,
    handed_on: AtomicU64,
    handshakes: [AtomicU64; HANDSHAKES.len()],
    /// First what was refused, then what would have been.
    refused: [[AtomicU64; REFUSED.len()]; 2],
    forgotten: AtomicU64,
    compressed: [AtomicU64; CODINGS.len()],
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            requests: (0..METHODS.len() * STATUSES).map(|_| AtomicU64::new(0)).collect(),
            buckets: Default::default(),
            micros: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            shelved: AtomicU64::new(0),
            handed_on: AtomicU64::new(0),
            handshakes: Default::default(),
            refused: Default::default(),
            forgotten: AtomicU64::new(0),
            compressed: Default::default(),
        }
    }
}

impl Shard {
    pub fn request(&self, method: &http::Method, status: u16, duration: Duration) {
        let name = method.as_str();
        let method = METHODS.iter().position(|known| *known == name).unwrap_or(METHODS.len() - 1);
        let status = usize::from(status.clamp(100, 599) - 100);
        add(&self.requests[method * STATUSES + status], 1);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        add(&self.buckets[BUCKETS.partition_point(|bound| *bound < micros)], 1);
        add(&self.micros, micros);
    }

    /// The request that was just counted got an error of 500 or more that is ours.
    pub fn fault(&self) {
        add(&self.faults, 1);
    }

    pub fn connection_opened(&self) {
        add(&self.opened, 1);
    }

    pub fn connection_closed(&self) {
        add(&self.closed, 1);
    }

    pub fn handshake(&self, ended: Handshake) {
        add(&self.handshakes[ended as usize], 1);
    }

    /// An answer was at hand: no parser, no file.
    pub fn shelved(&self) {
        add(&self.shelved, 1);
    }

    /// An answer of an upstream was handed on as it came.
    pub fn handed_on(&self) {
        add(&self.handed_on, 1);
    }

    /// A policy refused a request.
    pub fn refused(&self, why: Refused) {
        add(&self.refused[0][why as usize], 1);
    }

    /// A policy that only reports would have refused it.
    pub fn would_refuse(&self, why: Refused) {
        add(&self.refused[1][why as usize], 1);
    }

    /// There was no room for a client's count without forgetting another's.
    pub fn client_forgotten(&self) {
        add(&self.forgotten, 1);
    }

    /// An answer was compressed on its way.
    pub fn compressed(&self, coding: &[u8]) {
        if let Some(index) = CODINGS.iter().position(|it| it.as_bytes() == coding) {
            add(&self.compressed[index], 1);
        }
    }

    /// A connection waits for its next request.
    pub fn connection_idle(&self) {
        add(&self.idle, 1);
    }

    /// It is idle no more, by a request or because it closes.
    pub fn connection_busy(&self) {
        self.idle.store(self.idle.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    fn add_to(&self, sums: &mut Sums) {
        for (index, counter) in self.requests.iter().enumerate() {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 {
                *sums.requests.entry(index).or_default() += count;
            }
        }
        for (sum, counter) in sums.buckets.iter_mut().zip(&self.buckets) {
            *sum += counter.load(Ordering::Relaxed);
        }
        for (sum, counter) in sums.handshakes.iter_mut().zip(&self.handshakes) {
            *sum += counter.load(Ordering::Relaxed);
        }
        sums.faults += self.faults.load(Ordering::Relaxed);
        sums.handed_on += self.handed_on.load(Ordering::Relaxed);
        for (sums, counters) in sums.refused.iter_mut().zip(&self.refused) {
            for (sum, counter) in sums.iter_mut().zip(counters) {
                *sum += counter.load(Ordering::Relaxed);
            }
        }
        for (sum, counter) in sums.compressed.iter_mut().zip(&self.compressed) {
            *sum += counter.load(Ordering::Relaxed);
        }
        sums.forgotten += self.forgotten.load(Ordering::Relaxed);
        sums.shelved += self.shelved.load(Ordering::Relaxed);
        sums.micros += self.micros.load(Ordering::Relaxed);
        // Closed before opened, so that a connection that ends meanwhile never counts as less than none.
        sums.closed += self.closed.load(Ordering::Relaxed);
        sums.opened += self.opened.load(Ordering::Relaxed);
        sums.idle += self.idle.load(Ordering::Relaxed);
    }
}

/// A shard has one writer: load and store are enough, and cheaper than a locked add.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    #[test]
    fn shards_are_summed_and_strange_methods_are_other() {
        let metrics = Metrics::default();
        let (one, two) = (metrics.shard(), metrics.shard());
        one.request(&http::Method::GET, 200, Duration::from_millis(5));
        two.request(&http::Method::GET, 200, Duration::from_secs(20));
        two.request(&http::Method::from_bytes(b"BREW").expect("a token"), 418, Duration::ZERO);
        one.connection_opened();
        two.connection_opened();
        one.connection_closed();
        one.handshake(Handshake::Resumed);
        two.handshake(Handshake::Resumed);
        metrics.log_dropped("access", 7);
        one.fault();
        assert_eq!(metrics.answers(), (3, 1));
        metrics.on_scrape(Box::new(|gauges| gauges.app("a\"b", "ready", 3, Some(4096))));
        let text = metrics.exposition();
        for line in [
            "# HELP http_requests_total Total HTTP requests",
            "# TYPE http_requests_total counter",
            "http_requests_total{method=\"GET\",status=\"200\"} 2",
            "http_requests_total{method=\"OTHER\",status=\"418\"} 1",
            "# HELP http_request_duration_seconds HTTP request latency",
            "http_request_duration_seconds_bucket{le=\"0.0025\"} 1",
            "http_request_duration_seconds_bucket{le=\"0.005\"} 2",
            "http_request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "http_request_duration_seconds_sum 20.005",
            "http_request_duration_seconds_count 3",
            "miwid_connections{state=\"open\"} 1",
            "miwid_tls_handshakes_total{result=\"resumed\"} 2",
            "miwid_faults_total 1",
            "miwid_log_dropped_lines_total{log=\"access\"} 7",
            "miwid_app_restarts_total{app=\"a\\\"b\"} 3",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
        assert_eq!(metrics.connections(), (1, 0, 2));
    }
}
