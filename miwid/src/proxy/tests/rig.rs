//! A server in front of a forwarder, raw origins behind it, and a raw client: bytes as they are on the wire.

use std::{cell::RefCell, convert::Infallible, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use crate::{
    exchange::{Inbound, TunnelEnd},
    net::Drain,
    proxy::{Exchange, Forwarder, Tunnels, WakeRules, headers::tests::context},
    upstream::{Address, Directory, Endpoint, Pools, Set},
};

pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a test on one worker-like thread, with a deadline.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async { tokio::time::timeout(DEADLINE, test).await.expect("the test came to its end") });
}

pub(super) struct Rig {
    pub address: SocketAddr,
    pub set: Arc<Set>,
    pub pools: Rc<Pools>,
    /// Ends of tunnels, as the server would wait for them.
    pub tunnels: Rc<RefCell<Vec<oneshot::Receiver<TunnelEnd>>>>,
}

pub(super) fn proxy() -> config::Proxy {
    config::Proxy {
        urls: Vec::new(),
        strategy: config::Strategy::RoundRobin,
        health: config::Health {
            path: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            expect: Vec::new(),
        },
        preserve_host: true,
        upstream_http: config::UpstreamHttp::Http1,
        connect_timeout: Duration::from_secs(5),
        retries: 1,
        sticky: None,
        max_in_flight: None,
        proxy_protocol: None,
        tls_ca: None,
        tls_client_cert: None,
    }
}

pub(super) fn hold(max_requests: usize, timeout: Duration) -> config::Hold {
    config::Hold { max_requests, timeout, release_concurrency: 4, on_start: true }
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::with(hold(8, DEADLINE), |it| it).await
    }

    pub(super) async fn with(hold: config::Hold, adjust: impl FnOnce(Forwarder) -> Forwarder) -> Self {
        Self::to(&proxy(), hold, adjust).await
    }

    /// Its upstream speaks HTTP/2.
    pub(super) async fn multiplexed() -> Self {
        let proxy = config::Proxy { upstream_http: config::UpstreamHttp::Http2, ..proxy() };
        Self::to(&proxy, hold(8, DEADLINE), |it| it).await
    }

    async fn to(proxy: &config::Proxy, hold: config::Hold, adjust: impl FnOnce(Forwarder) -> Forwarder) -> Self {
        let directory = Directory::default();
        let set = directory.set("app", proxy, Some(&hold));
        let pools = Rc::new(Pools::default());
        tokio::task::spawn_local(directory.worker().run(pools.clone()));
        let forwarder = Rc::new(adjust(Forwarder {
            set: set.clone(),
            stream_drain: config::StreamDrain::Now,
            wake_on: WakeRules::default(),
            preserve_host: true,
            connect_timeout: DEADLINE,
            request_timeout: DEADLINE,
            stream_idle_timeout: DEADLINE,
            retries: 1,
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tunnels = Rc::default();
        tokio::task::spawn_local(serve(listener, forwarder, pools.clone(), Rc::clone(&tunnels)));
        Self { address, set, pools, tunnels }
    }

    pub(super) fn publish(&self, address: SocketAddr) -> Arc<Endpoint> {
        self.set.publish(Address::Tcp(address), "app-0".to_owned(), true)
    }

    /// One request on a connection of its own; the whole response as text.
    pub(super) async fn ask(&self, request: &str) -> String {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    pub(super) async fn get(&self) -> String {
        self.ask("GET /x?y=1 HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n").await
    }
}

async fn serve(
    listener: TcpListener,
    forwarder: Rc<Forwarder>,
    pools: Rc<Pools>,
    tunnels: Rc<RefCell<Vec<oneshot::Receiver<TunnelEnd>>>>,
) {
    // As long as it lives, nobody is told to go.
    let (_drain, signal) = Drain::new();
    let open = Tunnels::new(signal);
    loop {
        let (stream, remote) = listener.accept().await.unwrap();
        let (forwarder, pools, tunnels, open) = (forwarder.clone(), pools.clone(), tunnels.clone(), open.clone());
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (forwarder, pools, tunnels, open) = (forwarder.clone(), pools.clone(), tunnels.clone(), open.clone());
            async move {
                let mut context = context(&remote.to_string());
                let accept = request.headers().clone();
                let target = request.uri().path_and_query().map_or("/", |it| it.as_str()).to_owned();
                let path = request.uri().path().to_owned();
                let request = request.map(|it| Inbound::new(it, 1024 * 1024, DEADLINE));
                let exchange = Exchange {
                    context: &mut context,
                    pools: &pools,
                    tunnels: &open,
                    target: &target,
                    path: &path,
                    resumed: None,
                };
                let response = forwarder.forward(request, exchange).await.unwrap_or_else(|it| it.response(&accept));
                if let Some(ending) = context.tunnel {
                    let (heard, ended) = oneshot::channel();
                    ending.then(move |end| _ = heard.send(end));
                    tunnels.borrow_mut().push(ended);
                }
                Ok::<_, Infallible>(response)
            }
        });
        tokio::task::spawn_local(async move {
            // The first byte tells a client with prior knowledge of HTTP/2; no method here begins with a P and an R.
            let mut first = [0; 2];
            let _ = stream.peek(&mut first).await;
            let io = TokioIo::new(stream);
            if &first == b"PR" {
                let _ = http2::Builder::new(Here).serve_connection(io, service).await;
            } else {
                let _ = http1::Builder::new().serve_connection(io, service).with_upgrades().await;
            }
        });
    }
}

/// Runs hyper's tasks on this thread.
#[derive(Clone, Copy)]
pub(super) struct Here;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// An address where nobody listens: discard, a service that hosts have long ceased to offer. A port that was free a moment ago would
/// not do, since others ask for one as well.
pub(super) fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

/// An origin whose every connection is handled by `handle`, which also learns how many came before.
pub(super) async fn origin<F: Future<Output = ()> + 'static>(
    handle: impl Fn(TcpStream, usize) -> F + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let mut count = 0;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(handle(stream, count));
            count += 1;
        }
    });
    address
}

/// The next request head, as text without its blank line; none when the other end closed.
pub(super) async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

pub(super) async fn say(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Answers every request of a connection with the number of the connection.
pub(super) async fn polite(mut stream: TcpStream, number: usize) {
    while head(&mut stream).await.is_some() {
        say(&mut stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nconnection {number:2}")).await;
    }
}

/// Waits for something to become true, without measuring how long that takes.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
