//! Programmable origins for the proxy to talk to: one that speaks HTTP properly, one that answers raw bytes.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// One request as the origin got it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    /// A header as text, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// An HTTP/1.1 origin with switches. Its answer is its name; `/echo` answers the body, `/health` the health status.
pub struct Origin {
    address: SocketAddr,
    switches: Arc<Switches>,
    task: JoinHandle<()>,
}

struct Switches {
    name: String,
    delay_ms: AtomicU64,
    status: AtomicU16,
    health: AtomicU16,
    close: AtomicBool,
    requests: AtomicUsize,
    probes: AtomicUsize,
    connections: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

// === impl Origin ===

impl Origin {
    /// Serves on a port of the kernel's choice; `name` is what `/` answers.
    pub async fn start(name: &str) -> Self {
        Self::start_at(name, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Serves on `address`.
    pub async fn start_at(name: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("binds");
        let address = listener.local_addr().expect("a bound address");
        let switches = Arc::new(Switches {
            name: name.to_owned(),
            delay_ms: AtomicU64::new(0),
            status: AtomicU16::new(200),
            health: AtomicU16::new(200),
            close: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            seen: Mutex::default(),
        });
        let task = tokio::spawn(serve(listener, switches.clone()));
        Self { address, switches, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every answer but the health check's waits so long.
    pub fn delay(&self, delay: Duration) {
        self.switches.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The status of every answer but the health check's.
    pub fn status(&self, status: u16) {
        self.switches.status.store(status, Ordering::Relaxed);
    }

    /// The status of `/health`.
    pub fn health(&self, status: u16) {
        self.switches.health.store(status, Ordering::Relaxed);
    }

    /// From now on every connection ends after one answer.
    pub fn close_after_each(&self) {
        self.switches.close.store(true, Ordering::Relaxed);
    }

    /// Requests so far, health checks apart.
    pub fn requests(&self) -> usize {
        self.switches.requests.load(Ordering::Relaxed)
    }

    /// Health checks so far.
    pub fn probes(&self) -> usize {
        self.switches.probes.load(Ordering::Relaxed)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.switches.connections.load(Ordering::Relaxed)
    }

    /// The requests it got, health checks apart.
    pub fn seen(&self) -> Vec<Seen> {
        self.switches.seen.lock().expect("no panic under the lock").clone()
    }

    /// The last request it got.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the origin got a request")
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, switches: Arc<Switches>) {
    // Connections end with the origin: their tasks are owned here.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        switches.connections.fetch_add(1, Ordering::Relaxed);
        let switches = switches.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, switches.clone()));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, switches: Arc<Switches>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/health" {
        switches.probes.fetch_add(1, Ordering::Relaxed);
        return Ok(response(switches.health.load(Ordering::Relaxed), Bytes::from_static(b"health")));
    }
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    switches.requests.fetch_add(1, Ordering::Relaxed);
    let seen = Seen { method: head.method, uri: head.uri, headers: head.headers, body };
    switches.seen.lock().expect("no panic under the lock").push(seen.clone());
    tokio::time::sleep(Duration::from_millis(switches.delay_ms.load(Ordering::Relaxed))).await;
    let text = if seen.uri.path() == "/echo" { seen.body } else { Bytes::from(switches.name.clone()) };
    let mut response = response(switches.status.load(Ordering::Relaxed), text);
    if switches.close.load(Ordering::Relaxed) {
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn response(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response
}

/// An origin that reads a request head and answers fixed bytes: for answers that no HTTP library would send.
pub struct RawOrigin {
    address: SocketAddr,
    task: JoinHandle<()>,
    heads: Arc<Mutex<Vec<String>>>,
}

/// What it does behind its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behind {
    Close,
    /// Answers the next request, unless the answer says that it closes.
    Next,
}

impl RawOrigin {
    /// Answers every request with `bytes`, and closes.
    pub async fn start(bytes: &'static [u8]) -> Self {
        Self::serving(bytes, Behind::Close).await
    }

    /// Answers request after request with `bytes`.
    pub async fn lasting(bytes: &'static [u8]) -> Self {
        Self::serving(bytes, Behind::Next).await
    }

    async fn serving(bytes: &'static [u8], behind: Behind) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
        let address = listener.local_addr().expect("a bound address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve_raw(listener, bytes, behind, heads.clone()));
        Self { address, task, heads }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The request heads it got, byte for byte as far as they are UTF-8.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic under the lock").clone()
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve_raw(listener: TcpListener, bytes: &'static [u8], behind: Behind, heads: Arc<Mutex<Vec<String>>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(answer_raw(stream, bytes, behind, heads.clone()));
    }
}

async fn answer_raw(mut stream: TcpStream, bytes: &'static [u8], behind: Behind, heads: Arc<Mutex<Vec<String>>>) {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let is_last = !text.contains("content-length") && !text.contains("chunked") && !text.contains(" 304 ")
        || text.contains("connection: close");
    loop {
        let mut head = Vec::new();
        let mut chunk = [0; 4096];
        while !head.windows(4).any(|it| it == b"\r\n\r\n") && head.len() < 1 << 20 {
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(count) => head.extend_from_slice(&chunk[..count]),
            }
        }
        heads.lock().expect("no panic under the lock").push(String::from_utf8_lossy(&head).into_owned());
        if stream.write_all(bytes).await.is_err() || behind == Behind::Close || is_last {
            return;
        }
    }
}
