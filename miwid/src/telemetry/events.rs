//! What happened, for operators: a ring of the last 4096 events and a live feed. A slow reader gets a gap, never
//! back-pressure.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::sync::broadcast;

const RING: usize = 4096;
const FEED: usize = 1024;

/// What an event is about: the dotted kind is what `miwictl events` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind(pub &'static str);

#[derive(Clone, Debug, serde::Serialize)]
pub struct Event {
    /// Rises by one with every event of this daemon.
    pub cursor: u64,
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// `app.ready`, `app.exited`, `reload.applied`, `upstream.down`, `log.dropped` ...
    pub kind: &'static str,
    /// App, upstream, log or listener; empty for the daemon itself.
    pub subject: String,
    pub message: String,
}

fn rfc3339<S: serde::Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&jiff::Timestamp::try_from(*at).unwrap_or_default())
}

/// Cheap to clone; every room that has something to say holds one.
#[derive(Clone)]
pub struct Events {
    ring: Arc<Mutex<Ring>>,
    feed: broadcast::Sender<Event>,
}

#[derive(Default)]
struct Ring {
    last: u64,
    events: VecDeque<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { ring: Arc::default(), feed: broadcast::Sender::new(FEED) }
    }
}

impl Events {
    /// Also writes a log line: a warning when the news is bad.
    pub fn emit(&self, kind: &'static str, subject: impl Into<String>, message: impl Into<String>) {
        let (subject, message) = (subject.into(), message.into());
        // What is about certificates is looked for under `tls` in the log, with the rest of that.
        match (is_bad_news(kind), kind.starts_with("certificate.")) {
            (true, true) => tracing::warn!(target: "tls", kind, subject, "{message}"),
            (true, false) => tracing::warn!(kind, subject, "{message}"),
            (false, true) => tracing::info!(target: "tls", kind, subject, "{message}"),
            (false, false) => tracing::info!(kind, subject, "{message}"),
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        let event = Event { cursor: ring.last, at: SystemTime::now(), kind, subject, message };
        if ring.events.len() == RING {
            ring.events.pop_front();
        }
        ring.events.push_back(event.clone());
        // Sent under the lock, so that the feed has the order of the cursors. Nobody listening is no error.
        let _ = self.feed.send(event);
    }

    /// Events after `cursor` that the ring still holds, oldest first.
    pub fn since(&self, cursor: u64) -> Vec<Event> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.events.iter().filter(|event| event.cursor > cursor).cloned().collect()
    }

    /// Live feed; `Lagged(n)` is the gap.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.feed.subscribe()
    }
}

/// The last word of a kind says what came of it.
fn is_bad_news(kind: &str) -> bool {
    const BAD: [&str; 13] = [
        "failed",
        "expiring",
        "rollout_failed",
        "deploy_failed",
        "unwell",
        "unready",
        "flapping",
        "crash-loop",
        "down",
        "rejected",
        "partial",
        "dropped",
        "unresolved",
    ];
    kind.rsplit('.').next().is_some_and(|it| BAD.contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_and_cursors_rise_by_one() {
        let events = Events::default();
        let mut feed = events.subscribe();
        for n in 0..5000 {
            events.emit("app.ready", "shop", n.to_string());
        }
        let held = events.since(0);
        assert_eq!((held.len(), held[0].cursor, held[4095].cursor), (4096, 905, 5000));
        assert_eq!(events.since(4999).len(), 1);
        let gap = feed.try_recv().expect_err("a slow reader gets a gap");
        assert!(matches!(gap, broadcast::error::TryRecvError::Lagged(_)));
    }
}
