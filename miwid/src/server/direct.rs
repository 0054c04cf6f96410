//! A plain request whose answer is not at hand goes to the service without the parser: its head is taken apart here, by the
//! letter of the gate, and its answer is written here. What a client sees is the same; a test asks every case both ways.

use std::{
    convert::Infallible,
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body::{Body as _, Frame};
use tokio::net::TcpStream;

use super::{
    clock::DATE_BYTES,
    connection::{Aborted, Answer, Connection, Io},
    dress::Framing,
    errand::{Errand, Passed, Told},
    finish::Tracked,
    plain::{Fields, Plain, plain},
    service::TakenUp,
};
use crate::{
    exchange::Source,
    net::{Desk, Pipe, Staged, content_length, fields, is_origin_form},
    snapshot::Settings,
};

/// A poll moves at most so many stretches past our memory.
const STRETCHES_AT_ONCE: usize = 8;

/// An exchange whose request has been read: its answer is awaited or being written.
pub(super) struct Direct {
    /// Where informational answers come from.
    desk: Option<Desk>,
    stage: Stage,
    staged: Staged,
    /// What goes past our memory, behind what is staged.
    pipe: Option<Pipe>,
    unflushed: bool,
    /// The client has been told that this is the last answer.
    is_last: bool,
}

#[expect(clippy::large_enum_variant, reason = "whoever has it is in a box")]
enum Stage {
    Asking(Answer),
    Errand(Errand),
    Telling { body: Telling, framing: Framing },
    Told,
}

/// Whatever is told.
enum Telling {
    Tracked(Tracked),
    Passed(Passed),
}

impl Telling {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self {
            Self::Tracked(body) => Pin::new(body).poll_frame(cx),
            Self::Passed(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Tracked(body) => body.is_end_stream(),
            Self::Passed(body) => body.is_end_stream(),
        }
    }
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Keep,
    /// The client has all that it is owed, and knows that nothing follows.
    Last,
    Close,
}

/// A plain request as the parser would give it; `head` has its content, too. `None`: the parser must see it.
pub(super) fn request(head: &[u8], plain: &Plain<'_>, settings: &Settings) -> Option<Request<Source>> {
    let target = plain.target.as_bytes();
    if target.len() > settings.uri_bytes_max || !is_origin_form(target) {
        return None;
    }
    let head = Bytes::copy_from_slice(head);
    let line = memchr::memchr(b'\n', &head)?;
    let mut request = Request::new(Source::Empty);
    let at = plain.verb.as_str().len() + 1;
    *request.method_mut() = plain.verb.method();
    *request.uri_mut() = Uri::from_maybe_shared(head.slice_ref(&head[at..][..target.len()])).ok()?;
    *request.headers_mut() = fields(&head.slice(line + 1..plain.length)).ok()?;
    if !plain.content.is_empty() {
        *request.body_mut() = Source::Whole(head.slice(plain.length..plain.whole()));
    }
    Some(request)
}

impl Direct {
    /// `is_last`: the client wants nothing after this.
    pub(super) fn new(
        connection: &Connection,
        request: Request<Source>,
        taken_up: Option<TakenUp>,
        is_last: bool,
    ) -> Box<Self> {
        let (stage, desk) = asking(connection, request, taken_up);
        Box::new(Self { desk: Some(desk), stage, staged: Staged::new(), pipe: None, unflushed: false, is_last })
    }

    pub(super) fn errand(errand: Errand, is_last: bool) -> Box<Self> {
        let stage = Stage::Errand(errand);
        Box::new(Self { desk: None, stage, staged: Staged::new(), pipe: None, unflushed: false, is_last })
    }

    /// When the answer must have begun, where nobody else looks after that.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Errand(errand) => Some(errand.deadline()),
            _ => None,
        }
    }

    /// It has not begun in time.
    pub(super) fn overdue(&mut self, connection: &Connection) {
        if let Stage::Errand(errand) = std::mem::replace(&mut self.stage, Stage::Told) {
            self.follow(errand.overdue(), connection);
        }
    }

    /// Resolves when the answer has been taken, or cannot be given.
    pub(super) fn poll<T: Io>(&mut self, connection: &Connection, io: &mut T, cx: &mut Context<'_>) -> Poll<Then> {
        if let Stage::Errand(errand) = &mut self.stage {
            self.is_last |= connection.bell.is_announced();
            let (heard, framing) = ready!(errand.poll(connection, self.is_last, &mut self.staged.before, cx));
            if let Stage::Errand(errand) = std::mem::replace(&mut self.stage, Stage::Told) {
                self.follow(errand.end(heard, framing), connection);
            }
            let Ok(()) = self.poll_first(cx) else { return Poll::Ready(Then::Close) };
        }
        if let Stage::Asking(answer) = &mut self.stage {
            match Pin::new(answer).poll(cx) {
                Poll::Ready(answer) => {
                    let Ok(()) = self.begin(answer, connection, cx) else { return Poll::Ready(Then::Close) };
                }
                Poll::Pending => {
                    let Err(error) = ready!(self.poll_interim(connection, io, cx));
                    tracing::debug!(%error, "connection ended early");
                    return Poll::Ready(Then::Close);
                }
            }
        }
        match ready!(self.poll_tell(connection, io, cx)) {
            Ok(()) if !self.is_last => Poll::Ready(Then::Keep),
            Ok(()) => Poll::Ready(Then::Last),
            Err(error) => {
                tracing::debug!(%error, "connection ended early");
                Poll::Ready(Then::Close)
            }
        }
    }

    fn follow(&mut self, told: Told, connection: &Connection) {
        match told {
            Told::Answered(body, framing) => {
                self.stage = Stage::Telling { body: Telling::Passed(body), framing };
            }
            Told::Service(head, taken_up) => {
                let mut fields = Fields::default();
                let settings = &taken_up.snapshot.clone().settings;
                // It was one before.
                let request = plain(&head, settings, &mut fields).and_then(|it| request(&head, &it, settings));
                match request {
                    Some(request) => {
                        let (stage, desk) = asking(connection, request, Some(taken_up));
                        (self.stage, self.desk) = (stage, Some(desk));
                    }
                    None => self.is_last = true,
                }
            }
        }
    }

    /// Writes what is told before the answer. What the client does not take waits at the desk, which has a bound.
    fn poll_interim<T: Io>(
        &mut self,
        connection: &Connection,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Infallible, io::Error>> {
        loop {
            ready!(self.poll_write(connection, io, cx))?;
            if !self.hear_interim(cx) {
                return Poll::Pending;
            }
        }
    }

    fn hear_interim(&mut self, cx: &Context<'_>) -> bool {
        let Some(desk) = &self.desk else { return false };
        desk.listen(cx.waker());
        let interim = desk.take_interim();
        self.staged.before.extend_from_slice(interim.as_deref().unwrap_or_default());
        interim.is_some()
    }

    /// The head goes with what is there of the body.
    fn begin(
        &mut self,
        answer: Result<Response<Tracked>, Aborted>,
        connection: &Connection,
        cx: &mut Context<'_>,
    ) -> Result<(), ()> {
        let (mut parts, body) = answer.map_err(drop)?.into_parts();
        if self.is_last || connection.bell.is_announced() {
            parts.headers.insert(header::CONNECTION, http::HeaderValue::from_static("close"));
        }
        self.is_last |= parts.headers.get(header::CONNECTION).is_some_and(|it| it == "close");
        let framing = frame(parts.status, &mut parts.headers, &body);
        self.hear_interim(cx);
        // An idle connection needs no desk.
        connection.activity.set_desk(None);
        let date = || connection.worker.clock.date(Instant::now());
        write_head(&mut self.staged.before, parts.status, &parts.headers, date);
        self.stage = Stage::Telling { body: Telling::Tracked(body), framing };
        self.poll_first(cx)
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Result<(), ()> {
        let Stage::Telling { body, framing } = &mut self.stage else { return Ok(()) };
        if matches!(framing, Framing::None | Framing::Length(0)) {
            self.stage = Stage::Told;
            return Ok(());
        }
        match body.poll_frame(cx) {
            Poll::Ready(frame) => self.accept(frame).map_err(drop),
            Poll::Pending => Ok(()),
        }
    }

    fn poll_tell<T: Io>(&mut self, connection: &Connection, io: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stretches = 0;
        loop {
            ready!(self.poll_write(connection, io, cx))?;
            let Stage::Telling { body, .. } = &mut self.stage else { return Poll::Ready(Ok(())) };
            if let (Telling::Passed(passed), Some(socket)) = (&*body, io.socket())
                && has_pipe(&mut self.pipe, passed)
            {
                stretches += 1;
                if stretches > STRETCHES_AT_ONCE {
                    // A client as fast as we are would keep all others waiting.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                ready!(self.poll_splice(connection, socket, cx))?;
                continue;
            }
            let frame = ready!(body.poll_frame(cx));
            self.accept(frame)?;
        }
    }

    /// One stretch from socket to socket. What is behind the last one is at the end of the body.
    fn poll_splice(
        &mut self,
        connection: &Connection,
        socket: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let (Stage::Telling { body: Telling::Passed(body), framing: Framing::Length(left) }, Some(pipe)) =
            (&mut self.stage, &mut self.pipe)
        else {
            return Poll::Ready(Err(misframed("other")));
        };
        if pipe.is_empty() {
            let moved = ready!(body.poll_splice(pipe, cx))?;
            *left = left.checked_sub(moved as u64).ok_or_else(|| misframed("longer"))?;
        }
        while !pipe.is_empty() {
            match pipe.poll_drain(socket, cx) {
                Poll::Ready(written) => {
                    let written = written?;
                    connection.activity.written(written);
                    body.drained(written);
                }
                Poll::Pending => {
                    connection.activity.write_blocked();
                    return Poll::Pending;
                }
            }
        }
        connection.activity.flushed();
        if *left == 0 {
            (self.stage, self.pipe) = (Stage::Told, None);
        }
        Poll::Ready(Ok(()))
    }

    fn accept(&mut self, frame: Option<io::Result<Frame<Bytes>>>) -> io::Result<()> {
        let Stage::Telling { body, framing } = &mut self.stage else { return Ok(()) };
        // Trailers are for those who said that they take them, and those are not plain.
        let data = frame.transpose()?.and_then(|it| it.into_data().ok());
        let is_whole = data.is_none() || body.is_end_stream();
        let data = data.unwrap_or_default();
        match framing {
            Framing::None => {}
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or_else(|| misframed("longer"))?;
                self.staged.put(data, b"");
                if *left == 0 {
                    self.stage = Stage::Told;
                } else if is_whole {
                    return Err(misframed("shorter"));
                }
            }
            Framing::Chunked => {
                if !data.is_empty() {
                    write!(self.staged.before, "{:x}\r\n", data.len())?;
                    self.staged.put(data, b"\r\n");
                }
                if is_whole {
                    self.staged.last.extend_from_slice(b"0\r\n\r\n");
                    self.stage = Stage::Told;
                }
            }
        }
        Ok(())
    }

    /// Everything that is staged, down to the socket.
    fn poll_write<T: Io>(&mut self, connection: &Connection, io: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let activity = &connection.activity;
        while !self.staged.is_empty() {
            match self.staged.poll_write(cx, io) {
                Poll::Ready(written) => activity.written(written?),
                Poll::Pending => {
                    activity.write_blocked();
                    return Poll::Pending;
                }
            }
            self.unflushed = true;
        }
        if self.unflushed {
            let flushed = Pin::new(io).poll_flush(cx);
            if flushed.is_pending() {
                // TLS holds records of its own, which only a flush shows to be stuck.
                activity.write_blocked();
            }
            ready!(flushed)?;
            self.unflushed = false;
            activity.flushed();
        }
        Poll::Ready(Ok(()))
    }
}

fn asking(connection: &Connection, request: Request<Source>, taken_up: Option<TakenUp>) -> (Stage, Desk) {
    let desk = Desk::default();
    connection.activity.set_desk(Some(desk.clone()));
    (Stage::Asking(connection.ask(request, taken_up)), desk)
}

/// Whether a body goes through a pipe. Where none can be had, as when there are no descriptors left, it goes through our memory.
fn has_pipe(pipe: &mut Option<Pipe>, passed: &Passed) -> bool {
    if pipe.is_none() && passed.is_spliceable() {
        *pipe = Pipe::open().ok();
    }
    pipe.is_some()
}

fn misframed(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the body is {how} than its head says"))
}

/// Settles how the body is framed, and makes the head say so (RFC 9112, 6).
fn frame(status: StatusCode, headers: &mut HeaderMap, body: &Tracked) -> Framing {
    headers.remove(header::TRANSFER_ENCODING);
    // The parser's way leaves the length out of a 304 as well.
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || status.is_informational() {
        headers.remove(header::CONTENT_LENGTH);
        return Framing::None;
    }
    if let Some(said) = headers.get(header::CONTENT_LENGTH) {
        if let Some(length) = content_length(said.as_bytes()) {
            return Framing::Length(length);
        }
        headers.remove(header::CONTENT_LENGTH);
    }
    if let Some(length) = body.size_hint().exact() {
        headers.insert(header::CONTENT_LENGTH, length.into());
        return Framing::Length(length);
    }
    headers.insert(header::TRANSFER_ENCODING, http::HeaderValue::from_static("chunked"));
    Framing::Chunked
}

pub(super) fn status_line(into: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        return into.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or_default(), "\r\n"] {
        into.extend_from_slice(part.as_bytes());
    }
}

/// `date`: for an answer that has none of its own.
fn write_head(into: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap, date: impl Fn() -> [u8; DATE_BYTES]) {
    status_line(into, status);
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|it| into.extend_from_slice(it));
    let mut is_dated = false;
    for (name, value) in headers {
        is_dated |= *name == header::DATE;
        put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    if !is_dated {
        put(&[b"date: ", &date(), b"\r\n"]);
    }
    put(&[b"\r\n"]);
}
