//! What RFC 6455 says of frames, messages and closes, case by case: a strict echo gives the verdict, and the same bytes must
//! come back whether the client speaks to it directly, through miwid by an HTTP/1.1 upgrade, or through miwid by an extended
//! CONNECT of HTTP/2 (RFC 8441). The proxy judges no frame: what it changed would show as another verdict.

mod cases;
mod deflate;
mod echo;
mod roads;

use std::{fmt, net::SocketAddr};

use bytes::Bytes;
use harness::{Daemon, skip};

use self::{cases::Case, echo::Echo, roads::Road};

/// A frame of the echo's, as the client sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    /// FIN, the reserved bits and the opcode.
    pub first: u8,
    pub payload: Bytes,
}

/// How a connection went: what was said, and whether it ended with an end and not with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub frames: Vec<Seen>,
    pub ended: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    Broken,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.payload[..self.payload.len().min(16)];
        write!(f, "{:#04x}+{} {:02x?}", self.first, self.payload.len(), shown)
    }
}

/// Runs every case on every road to the strict echo.
async fn judge(cases: Vec<Case>) {
    let echo = Echo::start().await;
    judge_at(echo.address(), cases).await;
}

async fn judge_at(origin: SocketAddr, cases: Vec<Case>) {
    let daemon = Daemon::start(&format!("[backends.\"localhost\"]\nurl = \"http://{origin}\"\n")).await;
    println!("{} cases", cases.len());
    for case in cases {
        let expected = Verdict { frames: case.expected.clone(), ended: End::Whole };
        for road in [Road::Direct(origin), Road::Http1(daemon.http()), Road::Http2(daemon.http())] {
            let mut verdict = road.walk(&case).await;
            verdict.frames = verdict.frames.into_iter().map(cases::inflated).collect();
            assert!(verdict == expected, "{} {road:?}: {verdict:?} instead of {expected:?}", case.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_all_sizes_come_back() {
    judge(cases::sizes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_pongs_are_answered_by_the_ends() {
    judge(cases::pings()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reserved_is_refused() {
    judge(cases::reserved()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_become_messages() {
    judge(cases::fragments()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_utf8_or_refused() {
    judge(cases::texts()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_are_answered_with_their_code_or_refused() {
    judge(cases::closes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_said_all_may_still_listen() {
    judge(cases::half_closes()).await;
}

/// The other origin: this one compresses.
async fn judge_compressing(patience: &str, cases: Vec<Case>) {
    let Some((_origin, port)) = deflate::echo(patience).await else {
        skip!("the WebSocket origin is not installed (tests/run install)")
    };
    judge_at(SocketAddr::from(([127, 0, 0, 1], port)), cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_messages_keep_their_bits() {
    judge_compressing("60000", cases::compressed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn badly_compressed_messages_are_refused() {
    // It waits so many milliseconds for the Close of a client that has none to give.
    judge_compressing("300", cases::badly_compressed()).await;
}
