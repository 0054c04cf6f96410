//! The routes of the chaos app. `/` says who answers; tests read its fields by name.

use std::{
    convert::Infallible,
    env, io,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::time::sleep;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use crate::{mischief::Stream, options::Options};

type Body = BoxBody<Bytes, Infallible>;

/// What all connections share.
pub(crate) struct App {
    options: Options,
    requests: AtomicUsize,
    probes: AtomicUsize,
    probes_now: AtomicUsize,
    probes_most: AtomicUsize,
    probe_host: Mutex<String>,
    probe_agent: Mutex<String>,
    in_flight: AtomicUsize,
    in_flight_most: AtomicUsize,
}

impl App {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            requests: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            probes_now: AtomicUsize::new(0),
            probes_most: AtomicUsize::new(0),
            probe_host: Mutex::default(),
            probe_agent: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            in_flight_most: AtomicUsize::new(0),
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve_connection(stream: Box<dyn Stream>, app: Arc<App>) {
    let service = service_fn(move |request| answer(request, app.clone()));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(request: Request<Incoming>, app: Arc<App>) -> Result<Response<Body>, io::Error> {
    let path = request.uri().path().to_owned();
    if path == "/health" {
        return Ok(health(&request, &app).await);
    }
    app.requests.fetch_add(1, Ordering::Relaxed);
    let _counted = Counted::new(&app.in_flight);
    app.in_flight_most.fetch_max(app.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
    if app.options.crash_on.as_deref() == Some(&path) {
        std::process::abort();
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    Ok(match path.as_str() {
        "/" => text(StatusCode::OK, who()),
        "/fast" => after(5, "fast").await,
        "/slow" => after(app.options.slow_request, "slow").await,
        "/sleep" => after(number(&query, "ms").unwrap_or(0), "slept").await,
        "/env" => {
            document(&env::vars().map(|(name, value)| (name, value.into())).collect::<serde_json::Map<_, _>>().into())
        }
        "/headers" => document(&json!(headers(&request))),
        "/echo" => text(StatusCode::OK, request.into_body().collect().await.map_err(io::Error::other)?.to_bytes()),
        "/stats" => document(&stats(&app)),
        "/sse" => events(),
        "/ws" => websocket(request),
        "/log" => print(&query),
        "/status" => text(status(number(&query, "code")), "as asked"),
        "/crash" => std::process::exit(1),
        "/exit" => std::process::exit(number(&query, "code").and_then(|it| i32::try_from(it).ok()).unwrap_or(0)),
        "/abort" => std::process::abort(),
        "/segv" => die_of_segv().await,
        _ => text(StatusCode::NOT_FOUND, "no such route"),
    })
}

/// Who answers: instance, pid, generation, version.
fn who() -> String {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| "-".to_owned());
    format!(
        "instance={} pid={} generation={} version={}\n",
        variable("MIWI_INSTANCE"),
        std::process::id(),
        variable("MIWI_GENERATION"),
        variable("VERSION")
    )
}

async fn health(request: &Request<Incoming>, app: &App) -> Response<Body> {
    let count = app.probes.fetch_add(1, Ordering::Relaxed);
    let _counted = Counted::new(&app.probes_now);
    app.probes_most.fetch_max(app.probes_now.load(Ordering::Relaxed), Ordering::Relaxed);
    let said = |name| request.headers().get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    *app.probe_host.lock().expect("no panic under the lock") = said(header::HOST);
    *app.probe_agent.lock().expect("no panic under the lock") = said(header::USER_AGENT);
    let from_file = app.options.health_file.as_ref().and_then(|it| std::fs::read_to_string(it).ok());
    let wish = from_file.as_deref().unwrap_or(&app.options.health).trim();
    match wish.strip_prefix("flap:").and_then(|it| it.parse::<usize>().ok()) {
        Some(period) if (count / period.max(1)).is_multiple_of(2) => text(StatusCode::OK, "up"),
        Some(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "down"),
        None if wish == "hang" => std::future::pending().await,
        None => {
            let mut response = text(status(wish.parse().ok()), "health");
            if response.status().is_redirection() {
                response.headers_mut().insert(header::LOCATION, header::HeaderValue::from_static("/login"));
            }
            response
        }
    }
}

fn stats(app: &App) -> serde_json::Value {
    json!({
        "pid": std::process::id(),
        "requests": app.requests.load(Ordering::Relaxed),
        "in_flight": app.in_flight.load(Ordering::Relaxed),
        "in_flight_max": app.in_flight_most.load(Ordering::Relaxed),
        "probes": app.probes.load(Ordering::Relaxed),
        "probes_at_once_max": app.probes_most.load(Ordering::Relaxed),
        "probe_host": *app.probe_host.lock().expect("no panic under the lock"),
        "probe_agent": *app.probe_agent.lock().expect("no panic under the lock"),
    })
}

fn headers(request: &Request<Incoming>) -> Vec<(String, String)> {
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

async fn after(milliseconds: u64, body: &'static str) -> Response<Body> {
    sleep(Duration::from_millis(milliseconds)).await;
    text(StatusCode::OK, format!("{body} {}", who()))
}

/// An event every 100 ms, for ever.
fn events() -> Response<Body> {
    let ticks = stream::unfold(0_u64, |count| async move {
        sleep(Duration::from_millis(100)).await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("data: {count}\n\n")))), count + 1))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(ticks)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    response
}

fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .body(empty())
        .expect("a valid response")
}

/// `text=...` prints a line, `bytes=N` prints N bytes without a newline before the end, `raw=1` prints invalid UTF-8.
fn print(query: &str) -> Response<Body> {
    let mut out = io::stdout().lock();
    let written = if let Some(lines) = number(query, "lines") {
        let fill = "z".repeat(usize::try_from(number(query, "bytes").unwrap_or(100)).unwrap_or(0).min(16 << 10));
        (0..lines.min(1 << 20)).try_for_each(|line| writeln!(out, "w0 {line:08} {fill}"))
    } else if let Some(bytes) = number(query, "bytes") {
        let long = "y".repeat(usize::try_from(bytes).unwrap_or(0).min(4 << 20));
        out.write_all(long.as_bytes()).and_then(|()| out.write_all(b"\n"))
    } else if number(query, "raw").is_some() {
        out.write_all(b"raw \xff\xfe\x00\x01 bytes\n")
    } else {
        writeln!(out, "{}", value(query, "text").unwrap_or_default())
    };
    let _ = written.and_then(|()| out.flush());
    text(StatusCode::OK, "printed")
}

/// The signal of a wild pointer, without one: the process sends it to itself. Twice, because the runtime's handler
/// takes the first and only then lets the signal kill.
async fn die_of_segv() -> Response<Body> {
    for _ in 0..2 {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSEGV);
    }
    std::future::pending().await
}

fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn number(query: &str, name: &str) -> Option<u64> {
    value(query, name)?.parse().ok()
}

fn status(code: Option<u64>) -> StatusCode {
    code.and_then(|it| StatusCode::from_u16(u16::try_from(it).ok()?).ok()).unwrap_or(StatusCode::OK)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(BodyExt::boxed(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}

fn document(body: &serde_json::Value) -> Response<Body> {
    text(StatusCode::OK, body.to_string())
}

fn empty() -> Body {
    BodyExt::boxed(Full::new(Bytes::new()))
}

/// Counts up while it lives, also when the client leaves and the request is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
