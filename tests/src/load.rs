//! Steady load: keep-alive connections that count every answer that is not the expected one.
//!
//! A reset, an early end or an unexpected status is a failure; nothing is retried, except that a connection which the
//! server closed *after* a complete answer (and said so) is opened anew, as every client does.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::{client::EXCHANGE, wait};

/// How many failures are kept with their text.
const KEPT_MAX: usize = 20;

/// A load that is not running yet.
#[derive(Clone)]
pub struct Load {
    address: SocketAddr,
    host: String,
    paths: Vec<String>,
    connections: usize,
    requests_max: Option<usize>,
    expected: Vec<u16>,
}

/// A load that runs.
pub struct Running {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct LoadResult {
    pub sent: usize,
    pub ok: usize,
    pub failed: usize,
    /// The first failures: kind or status, and the beginning of the body.
    pub failures: Vec<(String, String)>,
    /// Every body of an expected answer, each once.
    pub bodies: std::collections::BTreeSet<String>,
    /// The longest exchange that was answered as expected: a figure to print, never to assert on.
    pub slowest: Duration,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicUsize,
    ok: AtomicUsize,
    result: Mutex<LoadResult>,
}

// === impl Load ===

impl Load {
    /// 20 connections on `/`, expecting 200.
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            paths: vec!["/".to_owned()],
            connections: 20,
            requests_max: None,
            expected: vec![200],
        }
    }

    /// The paths that the connections take in turn.
    #[must_use]
    pub fn paths(mut self, paths: &[&str]) -> Self {
        self.paths = paths.iter().map(|&it| it.to_owned()).collect();
        self
    }

    #[must_use]
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// Ends by itself after so many requests.
    #[must_use]
    pub fn requests(mut self, count: usize) -> Self {
        self.requests_max = Some(count);
        self
    }

    /// The statuses that are not failures.
    #[must_use]
    pub fn expect(mut self, statuses: &[u16]) -> Self {
        self.expected = statuses.to_vec();
        self
    }

    /// Starts it in the background.
    pub fn start(self) -> Running {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        let load = Arc::new(self);
        for number in 0..load.connections {
            tasks.spawn(drive(load.clone(), shared.clone(), number));
        }
        Running { shared, tasks }
    }

    /// Runs it to its end; it must have a number of requests.
    pub async fn run(self) -> LoadResult {
        assert!(self.requests_max.is_some(), "a load that is run to its end needs a number of requests");
        self.start().finish().await
    }
}

// === impl Running ===

impl Running {
    /// Waits until `count` more requests were answered as expected: the load is really flowing.
    pub async fn flowing(&self, count: usize) {
        let goal = self.shared.ok.load(Ordering::Relaxed) + count;
        wait::until(
            wait::LATER,
            &format!("{count} more requests of the load are answered; {:?}", self.so_far()),
            || std::future::ready(self.shared.ok.load(Ordering::Relaxed) >= goal),
        )
        .await;
    }

    /// What came of it until now.
    pub fn so_far(&self) -> LoadResult {
        self.shared.collect()
    }

    /// Tells it to stop, lets open exchanges end, and returns what came of it.
    pub async fn stop(self) -> LoadResult {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.finish().await
    }

    async fn finish(mut self) -> LoadResult {
        while let Some(done) = self.tasks.join_next().await {
            done.expect("a load task does not panic");
        }
        self.shared.collect()
    }
}

// === impl LoadResult ===

impl LoadResult {
    /// Panics unless there was load and none of it failed.
    pub fn assert_none_failed(&self) {
        assert!(self.ok > 0, "the load never got an answer: {self:?}");
        assert!(self.failed == 0, "{} of {} requests failed: {:#?}", self.failed, self.sent, self.failures);
        assert_eq!(self.ok, self.sent, "every request is answered");
    }
}

// === impl Shared ===

impl Shared {
    fn collect(&self) -> LoadResult {
        let mut result = self.result.lock().expect("no panic under the lock").clone();
        result.sent = self.sent.load(Ordering::Relaxed);
        result.ok = self.ok.load(Ordering::Relaxed);
        result
    }

    fn succeed(&self, body: &Bytes, took: Duration) {
        let mut result = self.result.lock().expect("no panic under the lock");
        result.slowest = result.slowest.max(took);
        if result.bodies.len() < 1000 {
            result.bodies.insert(excerpt(body));
        }
        drop(result);
        self.ok.fetch_add(1, Ordering::Relaxed);
    }

    fn fail(&self, kind: String, body: String) {
        let mut result = self.result.lock().expect("no panic under the lock");
        result.failed += 1;
        if result.failures.len() < KEPT_MAX {
            result.failures.push((kind, body));
        }
    }

    /// Counts one request as sent, unless the load is over.
    fn admit(&self, requests_max: Option<usize>) -> Option<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        self.sent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sent| {
                requests_max.is_none_or(|most| sent < most).then_some(sent + 1)
            })
            .ok()
    }
}

type Sender = SendRequest<Empty<Bytes>>;

async fn drive(load: Arc<Load>, shared: Arc<Shared>, number: usize) {
    let mut sender: Option<Sender> = None;
    let mut turn = number;
    while shared.admit(load.requests_max).is_some() {
        let path = &load.paths[turn % load.paths.len()];
        turn += 1;
        let begun = std::time::Instant::now();
        match timeout(EXCHANGE, exchange(&load, &mut sender, path)).await {
            Ok(Ok((status, body))) if load.expected.contains(&status) => shared.succeed(&body, begun.elapsed()),
            Ok(Ok((status, body))) => shared.fail(format!("{status} {path}"), excerpt(&body)),
            Ok(Err(error)) => {
                sender = None;
                shared.fail(format!("{path}: {}", chain(&error)), String::new());
                // A dead daemon must not turn the load into a busy loop.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(_) => {
                sender = None;
                shared.fail(format!("{path}: no answer within {EXCHANGE:?}"), String::new());
            }
        }
    }
}

async fn exchange(load: &Load, sender: &mut Option<Sender>, path: &str) -> io::Result<(u16, Bytes)> {
    if sender.as_mut().is_none_or(|it| it.is_closed()) {
        let stream = TcpStream::connect(load.address).await?;
        let (fresh, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        *sender = Some(fresh);
    }
    let open = sender.as_mut().expect("opened above");
    open.ready().await.map_err(io::Error::other)?;
    let request = Request::get(path).header(header::HOST, &load.host).body(Empty::new()).map_err(io::Error::other)?;
    let response = open.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    let closing =
        response.headers().get(header::CONNECTION).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"close"));
    let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    if closing {
        *sender = None;
    }
    Ok((status, body))
}

fn excerpt(body: &Bytes) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Origin, RawOrigin};

    #[tokio::test]
    async fn a_load_counts_what_was_answered() {
        let origin = Origin::start("origin").await;
        let result = Load::new(origin.address(), "a.test").connections(4).requests(50).run().await;
        result.assert_none_failed();
        assert_eq!((result.ok, origin.requests()), (50, 50));
        assert!(origin.connections() <= 4, "connections are kept alive");
        assert_eq!(result.bodies.into_iter().collect::<Vec<_>>(), ["origin"]);
    }

    #[tokio::test]
    async fn a_load_counts_an_unexpected_status_as_a_failure() {
        let origin = Origin::start("origin").await;
        origin.status(503);
        let result = Load::new(origin.address(), "a.test").requests(10).run().await;
        assert_eq!((result.ok, result.failed), (0, 10));
        assert_eq!(result.failures[0], ("503 /".to_owned(), "origin".to_owned()));
    }

    #[tokio::test]
    async fn a_load_counts_an_early_end_as_a_failure() {
        let origin = RawOrigin::start(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort").await;
        let address = origin.url().trim_start_matches("http://").parse().expect("an address");
        let result = Load::new(address, "a.test").connections(2).requests(4).run().await;
        assert_eq!((result.ok, result.failed), (0, 4));
    }

    #[tokio::test]
    async fn a_connection_that_was_announced_to_close_is_opened_anew() {
        let origin = Origin::start("origin").await;
        origin.close_after_each();
        Load::new(origin.address(), "a.test").connections(2).requests(20).run().await.assert_none_failed();
    }
}
