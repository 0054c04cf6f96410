//! A connection between requests, and the short way of an answer: one read into the worker's buffer, one look on the shelf,
//! one write. A plain request whose answer is not on the shelf goes to the service (`direct`); whatever is not plain leaves
//! for the parser (`http1`) with every byte that was read.
//!
//! This is where thousands of connections spend their lives, so what it keeps for each of them must stay small.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::{io::ReadBuf, time::Sleep};

use super::{
    connection::{Connection, Io},
    direct::{self, Direct, Then},
    errand::{self, Asked, Taken},
    plain::{Fields, Plain, Verb, plain},
    progress::{Content, Progress},
    shelf::{Label, Ready},
};
use crate::{
    net::{Phase, Rung, Running, Sending, is_preface},
    snapshot::Snapshot,
    telemetry::Record,
};

/// What a worker reads at once from a connection.
pub(super) const READ_BYTES: usize = 32 << 10;
pub(super) const WRITE_BYTES: usize = 16 << 10;

/// Why a connection leaves.
pub(super) enum Departure {
    /// Nothing more is to be done for it.
    End,
    /// What has been read, and not been answered, is for the parser.
    Parser(Bytes),
    /// The first bytes could be those of HTTP/2.
    Preface(Bytes),
    Stalled,
    /// It has its last answer and has sent more: were it closed now, that would reset it, and what of the answer is still on its
    /// way would be lost.
    Talkative,
}

pub(super) struct Front<T> {
    io: T,
    /// Read behind a request whose answer is still being written.
    unread: Bytes,
    owed: Option<Box<Owed>>,
    direct: Option<Box<Direct>>,
    /// Nothing has been read yet.
    is_new: bool,
    /// Nothing is read any more: the client wants to go when it has its answer.
    is_last: bool,
}

/// An answer that the client has not taken yet.
struct Owed {
    head: Vec<u8>,
    progress: Progress,
    record: Kept,
    _running: Running,
}

/// What the record of an answer needs of its request when the buffer has been given to others.
struct Kept {
    ready: Rc<Ready>,
    status: StatusCode,
    started: Instant,
    target: Box<str>,
    referer: Box<[u8]>,
    user_agent: Box<[u8]>,
}

impl<T: Io> Front<T> {
    pub(super) fn new(io: T, is_new: bool) -> Self {
        Self { io, unread: Bytes::new(), owed: None, direct: None, is_new, is_last: false }
    }

    pub(super) fn io(&mut self) -> &mut T {
        &mut self.io
    }

    pub(super) fn into_io(self) -> T {
        self.io
    }

    /// Serves until the connection has to leave, by itself, because it was told to, or because it has been silent too long.
    pub(super) fn poll_serve(
        &mut self,
        connection: &Connection,
        mut timer: Pin<&mut Sleep>,
        rung: &mut Rung,
        cx: &mut Context<'_>,
    ) -> Poll<Departure> {
        loop {
            if let Poll::Ready(departure) = self.poll(connection, cx) {
                return Poll::Ready(departure);
            }
            if self.owed.is_none() && self.direct.is_none() && Pin::new(&mut *rung).poll(cx).is_ready() {
                return Poll::Ready(Departure::End);
            }
            if let Poll::Ready(phase) = connection.activity.poll_expired(connection.timeouts, timer.as_mut(), cx) {
                return Poll::Ready(if phase == Phase::Stalled { Departure::Stalled } else { Departure::End });
            }
            let Some(direct) = &mut self.direct else { return Poll::Pending };
            let Some(due) = direct.deadline() else { return Poll::Pending };
            if !is_past(due.into(), timer.as_mut(), cx) {
                return Poll::Pending;
            }
            direct.overdue(connection);
        }
    }

    fn poll(&mut self, connection: &Connection, cx: &mut Context<'_>) -> Poll<Departure> {
        loop {
            if self.owed.is_some() && ready!(self.poll_owed(connection, cx)).is_err() {
                return Poll::Ready(Departure::End);
            }
            if let Some(direct) = &mut self.direct {
                match direct.poll(connection, &mut self.io, cx) {
                    Poll::Ready(Then::Keep) => self.direct = None,
                    Poll::Ready(Then::Last) => (self.direct, self.is_last) = (None, true),
                    Poll::Ready(Then::Close) => return Poll::Ready(Departure::End),
                    Poll::Pending if self.has_left(connection, cx) => return Poll::Ready(Departure::End),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.is_last {
                if self.has_more(connection, cx) {
                    return Poll::Ready(Departure::Talkative);
                }
                ready!(self.io.poll_goodbye(cx));
                return Poll::Ready(Departure::End);
            }
            if !self.unread.is_empty() {
                let unread = std::mem::take(&mut self.unread);
                if let Some(departure) = self.answer(connection, &unread, cx) {
                    return Poll::Ready(departure);
                }
                continue;
            }
            let mut buffer = connection.worker.read_buffer.borrow_mut();
            let mut read = ReadBuf::new(&mut buffer);
            if ready!(Pin::new(&mut self.io).poll_read(cx, &mut read)).is_err() || read.filled().is_empty() {
                return Poll::Ready(Departure::End);
            }
            if let Some(departure) = self.answer(connection, read.filled(), cx) {
                return Poll::Ready(departure);
            }
        }
    }

    /// Answers the requests in `bytes`, one after the other.
    fn answer(&mut self, connection: &Connection, bytes: &[u8], cx: &mut Context<'_>) -> Option<Departure> {
        if std::mem::take(&mut self.is_new) && is_preface(bytes) {
            return Some(Departure::Preface(Bytes::copy_from_slice(bytes)));
        }
        let worker = &connection.worker;
        let snapshot = worker.snapshot();
        let is_ordinary = connection.is_ordinary(&snapshot);
        let mut at = 0;
        while at < bytes.len() && !self.is_last {
            if self.owed.is_some() || self.direct.is_some() {
                self.unread = Bytes::copy_from_slice(&bytes[at..]);
                return None;
            }
            let started = Instant::now();
            let mut fields = Fields::default();
            let Some(plain) = plain(&bytes[at..], &snapshot.settings, &mut fields) else {
                return Some(Departure::Parser(Bytes::copy_from_slice(&bytes[at..])));
            };
            let shelved = || connection.shelved(&snapshot, &plain, started);
            let ready = is_ordinary.then(shelved).flatten();
            let Ok(content) = ready.as_ref().map_or(Ok(None), |it| content(&mut self.io, it, &plain)) else {
                return Some(Departure::End);
            };
            let (Some(ready), Some((status, content))) = (ready, content) else {
                let head = &bytes[at..][..plain.whole()];
                let asked = Asked { head, plain: &plain, fields: plain.fields, started };
                let taken = is_ordinary.then(|| errand::take(connection, &snapshot, &asked));
                self.is_last = plain.is_last;
                self.direct = match taken.unwrap_or(Taken::Service(None)) {
                    Taken::Errand(errand) => Some(Direct::errand(errand, plain.is_last)),
                    // What has a body is for the parser, unless something was done for it already.
                    Taken::Service(None) if plain.verb == Verb::Post => {
                        return Some(Departure::Parser(Bytes::copy_from_slice(&bytes[at..])));
                    }
                    Taken::Service(taken_up) => {
                        let Some(request) = direct::request(head, &plain, &snapshot.settings) else {
                            return Some(Departure::Parser(Bytes::copy_from_slice(&bytes[at..])));
                        };
                        Some(Direct::new(connection, request, taken_up, plain.is_last))
                    }
                };
                at += plain.whole();
                continue;
            };
            at += plain.whole();
            self.is_last = plain.is_last;
            let progress = Progress::new(content);
            if self.give(connection, Given { plain: &plain, ready, status, started }, progress, cx).is_err() {
                return Some(Departure::End);
            }
        }
        None
    }

    /// Whether the client goes on talking behind its last request.
    fn has_more(&mut self, connection: &Connection, cx: &mut Context<'_>) -> bool {
        let mut buffer = connection.worker.read_buffer.borrow_mut();
        let mut read = ReadBuf::new(&mut buffer);
        let _ = Pin::new(&mut self.io).poll_read(cx, &mut read);
        !read.filled().is_empty() || !self.unread.is_empty()
    }

    /// Whether the client has gone while it was waiting. What it has sent meanwhile is kept; more is not read before that is
    /// looked at.
    fn has_left(&mut self, connection: &Connection, cx: &mut Context<'_>) -> bool {
        if !self.unread.is_empty() {
            return false;
        }
        let mut buffer = connection.worker.read_buffer.borrow_mut();
        let mut read = ReadBuf::new(&mut buffer);
        match Pin::new(&mut self.io).poll_read(cx, &mut read) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                self.unread = Bytes::copy_from_slice(read.filled());
                false
            }
            Poll::Ready(_) => true,
        }
    }

    /// Writes an answer, or what of it the client takes now; the rest is owed.
    fn give(
        &mut self,
        connection: &Connection,
        Given { plain, ready, status, started }: Given<'_>,
        mut progress: Progress,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        let worker = &connection.worker;
        let buffer = &mut *worker.write_buffer.borrow_mut();
        let head = if status == StatusCode::NOT_MODIFIED { &ready.not_modified } else { &ready.whole };
        let length = head.write(&worker.clock.date(started), plain.is_last, buffer);
        let written = progress.poll(&mut self.io, &mut buffer[..], length, cx);
        match written {
            Poll::Ready(done) => {
                connection.record(plain.into(), &ready, status, started, progress.sent, done.is_err());
                connection.activity.answered(started);
                done
            }
            Poll::Pending => {
                let running = connection.activity.request(started);
                connection.activity.write_blocked();
                let record = Kept {
                    ready,
                    status,
                    started,
                    target: plain.target.into(),
                    referer: plain.referer.into(),
                    user_agent: plain.user_agent.into(),
                };
                let head = buffer[..length].to_vec();
                self.owed = Some(Box::new(Owed { head, progress, record, _running: running }));
                Ok(())
            }
        }
    }

    fn poll_owed(&mut self, connection: &Connection, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(owed) = &mut self.owed else { return Poll::Ready(Ok(())) };
        let before = owed.progress.head as u64 + owed.progress.sent;
        let length = owed.head.len();
        let done = owed.progress.poll(&mut self.io, &mut owed.head, length, cx);
        let after = owed.progress.head as u64 + owed.progress.sent;
        connection.activity.written((after - before) as usize);
        let done = ready!(done);
        connection.activity.flushed();
        if let Some(owed) = self.owed.take() {
            owed.record.write(connection, owed.progress.sent, done.is_err());
        }
        Poll::Ready(done)
    }
}

/// Whether that moment has come. If not, the timer rings then, or before, and it is looked at again.
fn is_past(due: tokio::time::Instant, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> bool {
    if timer.deadline() <= due {
        return false;
    }
    timer.as_mut().reset(due);
    timer.poll(cx).is_ready()
}

/// A client that goes away before it has taken its answer.
impl<T> Front<T> {
    pub(super) fn abandon(&mut self, connection: &Connection) {
        if let Some(owed) = self.owed.take() {
            owed.record.write(connection, owed.progress.sent, true);
        }
    }
}

struct Given<'a> {
    plain: &'a Plain<'a>,
    ready: Rc<Ready>,
    status: StatusCode,
    started: Instant,
}

/// What follows the head; `None` when that is not at hand.
fn content(io: &mut impl Io, ready: &Ready, plain: &Plain<'_>) -> io::Result<Option<(StatusCode, Content)>> {
    match plain.if_none_match {
        Some(tag) if !tag.is_empty() && *tag == *ready.etag => {
            return Ok(Some((StatusCode::NOT_MODIFIED, Content::None)));
        }
        // Perhaps a list, or a weak one.
        Some(_) => return Ok(None),
        None => {}
    }
    let stored = &ready.stored;
    let content = match &stored.file {
        Some(file) if io.takes_file(stored.length)? => Some(Content::File(Sending::new(file.clone(), stored.length))),
        _ if stored.length == 0 => Some(Content::None),
        _ => stored.bytes().map(|it| Content::Bytes(it.clone())),
    };
    Ok(content.map(|it| (StatusCode::OK, it)))
}

/// What a record takes from the request itself.
struct Sides<'a> {
    target: &'a str,
    referer: &'a [u8],
    user_agent: &'a [u8],
}

impl<'a> From<&'a Plain<'a>> for Sides<'a> {
    fn from(plain: &'a Plain<'a>) -> Self {
        Self { target: plain.target, referer: plain.referer, user_agent: plain.user_agent }
    }
}

impl Kept {
    fn write(&self, connection: &Connection, sent: u64, aborted: bool) {
        let sides = Sides { target: &self.target, referer: &self.referer, user_agent: &self.user_agent };
        connection.record(sides, &self.ready, self.status, self.started, sent, aborted);
    }
}

impl Connection {
    /// The answer to a plain request of an ordinary connection, as long as it is fresh and is for this one.
    fn shelved(&self, snapshot: &Arc<Snapshot>, plain: &Plain<'_>, now: Instant) -> Option<Rc<Ready>> {
        if plain.is_particular {
            return None;
        }
        let label = Label {
            scheme: self.peer.scheme,
            host: plain.host,
            accept_encoding: plain.accept_encoding,
            target: plain.target.as_bytes(),
        };
        let ready = self.worker.shelf.find(snapshot, &label, now)?;
        if let Some(secured) = &self.peer.secured
            && !snapshot.tls.as_ref().is_some_and(|it| it.covers(secured, &ready.host))
        {
            return None;
        }
        Some(ready)
    }

    fn record(&self, sides: Sides<'_>, ready: &Ready, status: StatusCode, started: Instant, sent: u64, aborted: bool) {
        let duration = started.elapsed();
        self.worker.shard.request(&Method::GET, status.as_u16(), duration);
        self.worker.shard.shelved();
        let ip = self.peer.remote.ip();
        let record = Record {
            started: self.worker.clock.time(started),
            duration,
            client_ip: ip.to_canonical(),
            peer_ip: ip,
            method: "GET",
            target: sides.target,
            protocol: "HTTP/1.1",
            scheme: self.peer.scheme.as_str(),
            host: &ready.host,
            status: status.as_u16(),
            bytes_sent: sent,
            bytes_received: 0,
            referer: sides.referer,
            user_agent: sides.user_agent,
            request_id: "",
            site: &ready.site,
            upstream: "",
            upstream_duration: None,
            reason: "",
            ray: "",
            aborted,
        };
        self.worker.access.borrow_mut().record(&record);
    }
}
