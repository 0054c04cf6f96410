//! A plain request that is sent over a connection which is open already, and whose answer's head is handed on line by line (hot):
//! no map is made of either. As soon as anything else turns up, `forward` goes on from there.

use std::{
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Forwarder,
    lines::{self, PlainRequest},
    relay::{Lease, Relay},
};
use crate::{
    net::Staged,
    upstream::{Connection, Heard, InFlight, PlainHead, Pools, Protocol},
};

/// An exchange that is under way.
pub struct Errand {
    connection: Connection,
    in_flight: InFlight,
    request: Staged,
    begun: Instant,
    idle_timeout: Duration,
    timeout: Duration,
}

/// What became of a plain request that was to be sent over an open connection.
pub enum Start {
    Begun(Box<Errand>),
    /// It has its endpoint, and needs a connection.
    Picked(Resumed),
    /// Nothing has been done.
    Weigh,
}

pub enum Outcome {
    /// The head was taken.
    Answered { body: Relay, after: Duration },
    /// The rest is for `forward`.
    Unfinished(Resumed),
}

/// A request that has its endpoint.
pub struct Resumed {
    pub(super) in_flight: InFlight,
    pub(super) stage: Stage,
}

/// How far it came.
pub(super) enum Stage {
    Picked,
    /// The answer is to be read, since the request was sent at that moment.
    Sent(Connection, Instant),
    /// Its connection had been idle, and broke; nothing is known of the request.
    Broken,
    /// A connection that had been idle was dead: another must be new.
    Stale,
    Overdue,
}

impl Forwarder {
    /// Whether it can be done by writing lines to a connection that is open.
    pub fn errand(&self, asked: &PlainRequest<'_>, pools: &Pools) -> Start {
        let transport = self.set.transport();
        // Whether it keeps the app awake is to be weighed.
        if !self.wake_on.is_anything() {
            return Start::Weigh;
        }
        // A connection that has told whose it is carries nothing of others; one of HTTP/1.1 that an upgrade has left is not for
        // what is asked over HTTP/2.
        if transport.proxy_protocol().is_some() || transport.protocol() != Protocol::Http1 {
            return Start::Weigh;
        }
        let Ok(picked) = self.set.pick(asked.stamp.peer, &[]) else { return Start::Weigh };
        let in_flight = picked.in_flight;
        let endpoint = in_flight.endpoint();
        let named = if self.preserve_host { None } else { endpoint.host(self.set.is_managed()) };
        let host = named.map_or(asked.stamp.authority.as_bytes(), |it| it.as_bytes());
        let mut request = Staged::new();
        let written = lines::write(asked, host, &mut request.before);
        let Some(connection) = written.and_then(|()| pools.checkout(endpoint, asked.started)) else {
            return Start::Picked(Resumed { in_flight, stage: Stage::Picked });
        };
        connection.begin_lines();
        let (idle_timeout, timeout) = (self.set.idle_timeout(), self.request_timeout);
        let begun = asked.started;
        Start::Begun(Box::new(Errand { connection, in_flight, request, begun, idle_timeout, timeout }))
    }
}

impl Errand {
    /// Its content, which goes behind its head. Before the first poll, and once.
    pub fn put(&mut self, content: Bytes) {
        self.request.put(content, b"");
    }

    /// When the answer must have begun.
    pub fn deadline(&self) -> Instant {
        self.begun + self.timeout
    }

    pub fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Shows the answer's head to `take`, which says whether it can be handed on as it is.
    pub fn poll(&mut self, cx: &mut Context<'_>, take: impl FnOnce(&PlainHead<'_>) -> bool) -> Poll<Heard> {
        self.connection.poll_lines(cx, &mut self.request, take)
    }

    pub fn end(self, heard: Heard, pools: &Rc<Pools>) -> Outcome {
        let Self { connection, in_flight, begun, idle_timeout, timeout, .. } = self;
        match heard {
            Heard::Plain(incoming) => {
                let lease =
                    Lease { connection, _in_flight: in_flight, pools: pools.clone(), idle_timeout, meter: None };
                Outcome::Answered { body: Relay::new(incoming, lease, timeout, None), after: begun.elapsed() }
            }
            Heard::Something => Outcome::Unfinished(Resumed { in_flight, stage: Stage::Sent(connection, begun) }),
            Heard::Nothing => Outcome::Unfinished(Resumed { in_flight, stage: Stage::Broken }),
        }
    }

    /// The answer did not begin in time.
    pub fn overdue(self) -> Resumed {
        Resumed { in_flight: self.in_flight, stage: Stage::Overdue }
    }
}
