//! Whether an endpoint answers: pure thresholds, and one check. A check has a connection of its own, so that a pool
//! that is busy or stale says nothing about health.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Address, ConnectError, Order, Protocol, Transport, connect};
use crate::net::proxy_protocol::Header;

/// Checks that must fail in a row before an endpoint is down.
const FAILURES_TO_DOWN: u32 = 3;
/// Going down twice within this is a flap: then one good check is not enough to come back.
const FLAP_WINDOW: Duration = Duration::from_secs(60);
/// A response head longer than this is no answer to a health check.
const HEAD_MAX: usize = 16 * 1024;

/// What one check found. `Bad` carries what an operator needs to read: `GET /health: connection refused`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Bad(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Up,
    Down,
}

/// The memory of one endpoint's checks: when is a verdict a change?
#[derive(Clone, Debug, Default)]
pub(super) struct Thresholds {
    failures: u32,
    successes: u32,
    went_down: Option<Instant>,
    flapping: bool,
}

impl Thresholds {
    pub(super) fn step(&mut self, healthy: bool, verdict: &Verdict, now: Instant) -> Option<Change> {
        match verdict {
            Verdict::Good => {
                self.failures = 0;
                self.successes += 1;
                let needed = if self.flapping { 2 } else { 1 };
                (!healthy && self.successes >= needed).then_some(Change::Up)
            }
            Verdict::Bad(_) => {
                self.successes = 0;
                self.failures += 1;
                if !healthy || self.failures < FAILURES_TO_DOWN {
                    return None;
                }
                self.flapping = self.went_down.is_some_and(|it| now.duration_since(it) < FLAP_WINDOW);
                self.went_down = Some(now);
                Some(Change::Down)
            }
        }
    }
}

/// One check on a connection of its own: TCP/unix connect, then `GET path` when there is one (User-Agent
/// `miwid-health`, Host = `host`).
pub async fn probe(address: &Address, host: &str, path: Option<&str>, expect: &[u16], timeout: Duration) -> Verdict {
    let transport = Arc::new(Transport::plain());
    Check { host, path, expect, timeout, tls_name: None, transport }.run(address).await
}

/// What one check asks, and how.
pub(super) struct Check<'a> {
    pub host: &'a str,
    pub path: Option<&'a str>,
    pub expect: &'a [u16],
    pub timeout: Duration,
    pub tls_name: Option<&'a ServerName<'static>>,
    pub transport: Arc<Transport>,
}

impl Check<'_> {
    pub(super) async fn run(&self, address: &Address) -> Verdict {
        let what = self.path.map_or_else(|| format!("connect to {address}"), |path| format!("GET {path}"));
        match tokio::time::timeout(self.timeout, self.attempt(address)).await {
            Err(_) => Verdict::Bad(format!("{what}: timed out after {} s", self.timeout.as_secs_f64())),
            Ok(Err(why)) => Verdict::Bad(format!("{what}: {why}")),
            Ok(Ok(None)) => Verdict::Good,
            Ok(Ok(Some(head))) => judge(&what, &head, self.expect),
        }
    }

    async fn attempt(&self, address: &Address) -> Result<Option<String>, String> {
        let protocol = self.transport.protocol();
        let order = Order { transport: self.transport.clone(), protocol, timeout: self.timeout, header: Header::Local };
        let stream = connect::dial(address, self.tls_name, &order).await.map_err(reason)?;
        let Some(path) = self.path else { return Ok(None) };
        let head = self.ask(stream, path, protocol).await;
        head.map(Some)
    }

    async fn ask<S>(&self, stream: S, path: &str, protocol: Protocol) -> Result<String, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if protocol == Protocol::Http2 {
            return self.ask_http2(stream, path).await.map_err(|error| error.to_string());
        }
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.host
        );
        ask(stream, &request).await.map_err(|error| wording(&error))
    }

    /// The response's status as a line of HTTP/1, which is what is judged.
    async fn ask_http2<S>(&self, stream: S, path: &str) -> Result<String, Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let scheme = if self.tls_name.is_some() { "https" } else { "http" };
        let uri = http::Uri::builder().scheme(scheme).authority(self.host).path_and_query(path).build()?;
        let request = http::Request::get(uri).header(http::header::USER_AGENT, AGENT).body(Empty::<Bytes>::new())?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        driver.abort();
        let answer = answer?;
        let location = answer.headers().get(http::header::LOCATION).and_then(|it| it.to_str().ok());
        let location = location.map(|it| format!("\r\nlocation: {it}")).unwrap_or_default();
        Ok(format!("HTTP/1.1 {}{location}", answer.status()))
    }
}

const AGENT: &str = "miwid-health";

fn reason(error: ConnectError) -> String {
    match error {
        ConnectError::TimedOut => "timed out".to_owned(),
        ConnectError::Refused(why) | ConnectError::Failed(why) | ConnectError::Tls(why) => why,
    }
}

fn wording(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "closed without an answer".to_owned(),
        _ => error.to_string(),
    }
}

/// Sends the request and reads the response head.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = memchr::memmem::find(&head, b"\r\n\r\n");
        if end.is_some() || head.len() > HEAD_MAX {
            head.truncate(end.unwrap_or(HEAD_MAX));
            return Ok(String::from_utf8_lossy(&head).into_owned());
        }
    }
}

fn judge(what: &str, head: &str, expect: &[u16]) -> Verdict {
    let mut lines = head.lines();
    let status = lines.next().filter(|it| it.starts_with("HTTP/1.")).and_then(|it| it.split(' ').nth(1)?.parse().ok());
    let Some(status) = status else { return Verdict::Bad(format!("{what}: not an HTTP answer")) };
    let good = if expect.is_empty() { (200..300).contains(&status) } else { expect.contains(&status) };
    if good {
        return Verdict::Good;
    }
    let location = lines.filter_map(|it| it.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("location"));
    Verdict::Bad(match location {
        Some((_, to)) if (300..400).contains(&status) => format!("{what}: {status} to {}", to.trim()),
        _ => format!("{what}: {status}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_expectation_decide() {
        let bad = |text: &str| Verdict::Bad(text.to_owned());
        for (head, expect, verdict) in [
            ("HTTP/1.1 200 OK", &[][..], Verdict::Good),
            ("HTTP/1.1 302 Found\r\nLocation: /login", &[], bad("GET /h: 302 to /login")),
            ("HTTP/1.1 301 Moved\r\nX: y\r\nlocation: /login", &[200], bad("GET /h: 301 to /login")),
            ("HTTP/1.1 301 Moved", &[200, 301], Verdict::Good),
            ("HTTP/1.0 404 Not Found", &[], bad("GET /h: 404")),
            ("SSH-2.0-x", &[], bad("GET /h: not an HTTP answer")),
        ] {
            assert_eq!(judge("GET /h", head, expect), verdict, "{head}");
        }
    }

    #[test]
    fn three_failures_take_it_down_and_one_good_check_brings_it_back() {
        let (mut it, now, bad) = (Thresholds::default(), Instant::now(), Verdict::Bad(String::new()));
        assert_eq!(it.step(true, &bad, now), None);
        assert_eq!(it.step(true, &bad, now), None);
        assert_eq!(it.step(true, &Verdict::Good, now), None);
        assert_eq!(it.step(true, &bad, now), None);
        assert_eq!(it.step(true, &bad, now), None);
        assert_eq!(it.step(true, &bad, now), Some(Change::Down));
        assert_eq!(it.step(false, &bad, now), None);
        assert_eq!(it.step(false, &Verdict::Good, now), Some(Change::Up));
    }

    #[test]
    fn after_a_flap_it_takes_two_good_checks() {
        let (mut it, now, bad) = (Thresholds::default(), Instant::now(), Verdict::Bad(String::new()));
        for _ in 0..2 {
            it.step(true, &bad, now);
            it.step(true, &bad, now);
            assert_eq!(it.step(true, &bad, now), Some(Change::Down));
        }
        assert_eq!(it.step(false, &Verdict::Good, now), None);
        assert_eq!(it.step(false, &Verdict::Good, now), Some(Change::Up));
    }
}
