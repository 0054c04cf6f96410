//! What RFC 6455 says of frames, messages and closes, case by case: a strict echo gives the verdict, and the same bytes must
//! come back whether the client speaks to it directly, through miwid by an HTTP/1.1 upgrade, or through miwid by an extended
//! CONNECT of HTTP/2 (RFC 8441). The proxy judges no frame: what it changed would show as another verdict.

mod cases;
mod deflate;
mod echo;
mod roads;

use std::fmt;

use bytes::Bytes;
use harness::Daemon;

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

/// Runs every case on every road.
async fn judge(cases: Vec<Case>) {
    let echo = Echo::start().await;
    let daemon = Daemon::start(&format!("[backends.\"localhost\"]\nurl = \"http://{}\"\n", echo.address())).await;
    println!("{} cases", cases.len());
    for case in cases {
        let expected = Verdict { frames: case.expected.clone(), ended: End::Whole };
        for road in [Road::Direct(echo.address()), Road::Http1(daemon.http()), Road::Http2(daemon.http())] {
            let verdict = road.walk(&case).await;
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
