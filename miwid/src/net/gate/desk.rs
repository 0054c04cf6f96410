//! What the gate and the service behind the parser tell each other. They run on one thread; atomics only because the io of
//! an upgraded connection must be `Send`.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use futures_util::task::AtomicWaker;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is not HTTP/1.1 to the letter; says in one sentence why.
    Syntax(&'static str),
    /// The request target is too long.
    Target,
    /// The header block is too large, or has too many fields.
    Header,
    /// A major version that nobody speaks here.
    Version,
    /// A transfer coding other than chunked.
    Coding,
    /// CONNECT, or a method too long to be any.
    Method,
    /// The head did not come to its end in time.
    Slow,
}

/// A refused request, as far as it could be read.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub flaw: Flaw,
    pub method: Option<Method>,
    pub target: Option<Uri>,
}

/// Cheap to clone. Requests of the connection are numbered from 1.
#[derive(Clone, Default)]
pub struct Desk(Arc<State>);

#[derive(Default)]
struct State {
    /// The number of the refused request; 0: none.
    refused: AtomicU64,
    /// Boxed: few are refused, and every tunnel keeps its desk.
    verdict: Mutex<Option<Box<Verdict>>>,
    answered: AtomicU64,
    tunnel: AtomicBool,
    expired: AtomicBool,
    begun: AtomicBool,
    quiet: AtomicBool,
    unflushed: AtomicBool,
    parked: AtomicBool,
    waiting: AtomicWaker,
    /// Informational answers that are still to be written, as bytes.
    interim: Mutex<Vec<u8>>,
    has_interim: AtomicBool,
}

/// Bytes of informational answers that wait for their turn; what is more is left out, as any of them may be.
const INTERIM_MAX: usize = 16 * 1024;

impl Desk {
    /// For the service: the verdict on its request number `number`, if it was refused.
    pub fn verdict(&self, number: u64) -> Option<Verdict> {
        if self.0.refused.load(Relaxed) != number {
            return None;
        }
        self.0.verdict.lock().unwrap_or_else(PoisonError::into_inner).take().map(|it| *it)
    }

    /// For the service: request number `number` has its answer; `tunnel`: what follows is not HTTP.
    pub fn answered(&self, number: u64, after: After) {
        self.0.answered.store(number, Relaxed);
        if after == After::Tunnel {
            self.0.tunnel.store(true, Relaxed);
        }
        self.0.waiting.wake();
    }

    /// For the driver: the head that has begun is refused as too slow the next time the connection is polled.
    pub fn expire(&self) {
        self.0.expired.store(true, Relaxed);
        self.0.waiting.wake();
    }

    /// For the driver: part of a head is held here, of which the parser knows nothing.
    pub fn has_begun(&self) -> bool {
        self.0.begun.load(Relaxed)
    }

    /// For whoever asks an upstream: an informational answer on the way to the final one (RFC 9110, 15.2). It is written
    /// as soon as the connection can, and left out if the final answer is faster.
    pub fn inform(&self, status: StatusCode, headers: &HeaderMap) {
        if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) || !status.is_informational() {
            return;
        }
        let mut interim = self.0.interim.lock().unwrap_or_else(PoisonError::into_inner);
        let head = interim_head(status, headers);
        if interim.len() + head.len() <= INTERIM_MAX {
            interim.extend_from_slice(&head);
            self.0.has_interim.store(true, Relaxed);
        }
        drop(interim);
        self.0.waiting.wake();
    }

    /// For the driver: nothing is held at the gate, everything written has gone to the socket, and no upgrade is awaited.
    pub fn is_quiet(&self) -> bool {
        self.0.quiet.load(Relaxed) && !self.0.unflushed.load(Relaxed) && !self.0.has_interim.load(Relaxed)
    }

    /// For the driver: the parser is about to be ended, the connection is not.
    pub fn park(&self) {
        self.0.parked.store(true, Relaxed);
    }

    pub fn is_parked(&self) -> bool {
        self.0.parked.load(Relaxed)
    }

    pub(super) fn set_quiet(&self, quiet: bool) {
        self.0.quiet.store(quiet, Relaxed);
    }

    pub(super) fn set_flushed(&self, flushed: bool) {
        self.0.unflushed.store(!flushed, Relaxed);
    }

    /// Informational answers that wait, as bytes.
    pub fn take_interim(&self) -> Option<Vec<u8>> {
        if !self.0.has_interim.load(Relaxed) {
            return None;
        }
        self.0.has_interim.store(false, Relaxed);
        Some(std::mem::take(&mut *self.0.interim.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(super) fn has_expired(&self) -> bool {
        self.0.expired.load(Relaxed)
    }

    pub(super) fn set_begun(&self, begun: bool) {
        if self.0.begun.load(Relaxed) != begun {
            self.0.begun.store(begun, Relaxed);
        }
    }

    pub(super) fn refuse(&self, number: u64, verdict: Box<Verdict>) {
        *self.0.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        self.0.refused.store(number, Relaxed);
    }

    /// What follows request `number`, once it is answered.
    pub(super) fn after(&self, number: u64, waker: &std::task::Waker) -> Option<After> {
        self.0.waiting.register(waker);
        if self.0.answered.load(Relaxed) < number {
            return None;
        }
        Some(if self.0.tunnel.load(Relaxed) { After::Tunnel } else { After::Http })
    }

    /// Who writes the connection hears of what is new here.
    pub fn listen(&self, waker: &std::task::Waker) {
        self.0.waiting.register(waker);
    }
}

/// Without the fields that frame a message: this one has no body.
fn interim_head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    const FRAMING: [HeaderName; 5] =
        [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::UPGRADE, header::TRAILER];
    let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("")).into_bytes();
    for (name, value) in headers.iter().filter(|(name, _)| !FRAMING.contains(name)) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// What comes behind an answered request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Http,
    Tunnel,
}
