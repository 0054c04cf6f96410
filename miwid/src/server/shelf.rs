//! Answers that can be given again as they are: one worker's, each with its head written out, found by the exact bytes of
//! scheme, host, Accept-Encoding and target. Filled by the ordinary way of a request, so that nothing is here that did not
//! pass it; emptied whenever the configuration is another.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName, StatusCode, header};
use quick_cache::{Weighter, unsync};

use super::clock::DATE_BYTES;
use crate::{
    exchange::{Context, Offer, Scheme, Stored, headers},
    net::content_length,
    snapshot::Snapshot,
};

/// Heads and contents of one worker's shelf.
const WEIGHT_MAX: u64 = 32 << 20;
const ENTRIES_EXPECTED: usize = 256;
/// Longer files are not kept in memory.
const KEPT_MAX: u64 = 1 << 20;
/// What an entry weighs beside its content; so there are never more than 32,768 of them.
const WEIGHT_LEAST: u64 = 1 << 10;
/// What was not given for so long is let go, and with it a descriptor that may hold the space of a deleted file.
const UNUSED_FOR: Duration = Duration::from_secs(10);
/// A head that is longer is not worth it.
const HEAD_MAX: usize = 2 << 10;
/// What goes in place of the empty line that ends a head.
const LAST: &[u8] = b"connection: close\r\n\r\n";
/// What a 304 says of the state that the client has (RFC 9110, 15.4.5), beside what every answer says.
const NOT_MODIFIED: [HeaderName; 7] = [
    header::SERVER,
    header::ETAG,
    header::LAST_MODIFIED,
    header::CACHE_CONTROL,
    header::VARY,
    header::ALT_SVC,
    header::EXPIRES,
];

/// One answer, and what its record says.
pub(super) struct Ready {
    pub(super) stored: Rc<Stored>,
    /// Not given again afterwards, before its files have been looked at.
    until: Instant,
    pub(super) whole: Head,
    pub(super) not_modified: Head,
    pub(super) etag: Box<[u8]>,
    pub(super) host: Box<str>,
    pub(super) site: Arc<str>,
}

/// A response head as it is written, with a place for the date.
pub(super) struct Head {
    bytes: Box<[u8]>,
    date_at: usize,
}

impl Head {
    fn new(status: StatusCode, headers: &HeaderMap, keep: impl Fn(&HeaderName) -> bool) -> Self {
        let reason = status.canonical_reason().unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
        for (name, value) in headers.iter().filter(|(name, _)| keep(name)) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"date: ");
        let date_at = bytes.len();
        bytes.extend_from_slice(&[b' '; DATE_BYTES]);
        bytes.extend_from_slice(b"\r\n\r\n");
        Self { bytes: bytes.into(), date_at }
    }

    /// Puts it into `into`, dated; returns its length. `is_last`: it says that no other answer will follow.
    pub(super) fn write(&self, date: &[u8; DATE_BYTES], is_last: bool, into: &mut [u8]) -> usize {
        let length = self.bytes.len();
        into[..length].copy_from_slice(&self.bytes);
        into[self.date_at..self.date_at + DATE_BYTES].copy_from_slice(date);
        if !is_last {
            return length;
        }
        let end = length - 2 + LAST.len();
        into[length - 2..end].copy_from_slice(LAST);
        end
    }
}

/// What an answer is found by.
pub(super) struct Label<'a> {
    pub(super) scheme: Scheme,
    pub(super) host: &'a [u8],
    pub(super) accept_encoding: &'a [u8],
    pub(super) target: &'a [u8],
}

impl Label<'_> {
    /// No part of a head has a NUL in it.
    fn write(&self, into: &mut Vec<u8>) {
        into.clear();
        into.push(self.scheme as u8);
        for part in [self.host, b"\0", self.accept_encoding, b"\0", self.target] {
            into.extend_from_slice(part);
        }
    }
}

#[derive(Clone)]
struct Size;

impl Weighter<Box<[u8]>, Rc<Ready>> for Size {
    fn weight(&self, _: &Box<[u8]>, ready: &Rc<Ready>) -> u64 {
        // The same for ever, so it cannot depend on whether the content has been read.
        let content = if ready.stored.length <= KEPT_MAX { ready.stored.length } else { 0 };
        content + WEIGHT_LEAST
    }
}

pub(super) struct Shelf(RefCell<Inner>);

struct Inner {
    /// What the answers were made under.
    snapshot: Option<Arc<Snapshot>>,
    answers: unsync::Cache<Box<[u8]>, Rc<Ready>, Size, RandomState>,
    label: Vec<u8>,
}

impl Default for Shelf {
    fn default() -> Self {
        let hasher = RandomState::default();
        let answers = unsync::Cache::with(ENTRIES_EXPECTED, WEIGHT_MAX, Size, hasher, Default::default());
        Self(RefCell::new(Inner { snapshot: None, answers, label: Vec::new() }))
    }
}

impl Shelf {
    /// An answer that needs no second look `now`.
    pub(super) fn find(&self, snapshot: &Arc<Snapshot>, label: &Label<'_>, now: Instant) -> Option<Rc<Ready>> {
        let Inner { snapshot: of, answers, label: key } = &mut *self.0.borrow_mut();
        if !of.as_ref().is_some_and(|it| Arc::ptr_eq(it, snapshot)) {
            return None;
        }
        label.write(key);
        answers.get(key.as_slice()).filter(|it| it.until > now).cloned()
    }

    /// Keeps an answer that was just made under `snapshot`.
    pub(super) fn put(&self, snapshot: &Arc<Snapshot>, label: &Label<'_>, ready: Ready) {
        self.align(snapshot);
        let Inner { answers, label: key, .. } = &mut *self.0.borrow_mut();
        label.write(key);
        answers.insert(key.as_slice().into(), Rc::new(ready));
    }

    /// Forgets what was made under another configuration. Called every second, so that no snapshot lives on because of us.
    pub(super) fn align(&self, snapshot: &Arc<Snapshot>) {
        let inner = &mut *self.0.borrow_mut();
        if !inner.snapshot.as_ref().is_some_and(|it| Arc::ptr_eq(it, snapshot)) {
            inner.snapshot = Some(snapshot.clone());
            inner.answers.clear();
        }
    }

    /// What every answer says has changed.
    pub(super) fn clear(&self) {
        self.0.borrow_mut().answers.clear();
    }

    /// Lets go of what nobody has asked for in a while. Called every second.
    pub(super) fn sweep(&self, now: Instant) {
        self.0.borrow_mut().answers.retain(|_, ready| ready.until + UNUSED_FOR > now);
    }
}

/// The answer as it can be given again; `None` when it is for its own request only. `headers` are all that were sent.
pub(super) fn ready(status: StatusCode, headers: &HeaderMap, context: &Context) -> Option<Ready> {
    let Offer { stored, until } = context.offer.clone()?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|it| content_length(it.as_bytes()));
    let own = [headers::X_REQUEST_ID, header::SET_COOKIE];
    if status != StatusCode::OK || length != Some(stored.length) || own.iter().any(|it| headers.contains_key(it)) {
        return None;
    }
    let whole = Head::new(status, headers, |_| true);
    let extra = |name: &_| context.extra.as_ref().is_some_and(|it| it.adds(name));
    let ready = Ready {
        stored,
        until,
        not_modified: Head::new(StatusCode::NOT_MODIFIED, headers, |it| NOT_MODIFIED.contains(it) || extra(it)),
        etag: headers.get(header::ETAG).map_or(&[][..], |it| it.as_bytes()).into(),
        host: context.host.as_str().into(),
        site: context.site.clone()?,
        whole,
    };
    (ready.whole.bytes.len() <= HEAD_MAX).then_some(ready)
}
