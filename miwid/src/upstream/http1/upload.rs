//! A request on its way to an endpoint: head and what is there of the body in one write, the rest as it comes. It is
//! polled beside the answer, which may come first.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, request};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use super::request::{Framing, announced, write_chunk_size, write_end, write_head};
use crate::{exchange::Body, net::Staged};

/// Why a request did not go out as a whole.
#[derive(Debug)]
pub(super) enum Fault {
    /// Its body broke off: nothing is wrong with the endpoint.
    Body(io::Error),
    Write(io::Error),
}

pub(super) struct Upload {
    body: Body,
    framing: Framing,
    announced: Vec<HeaderName>,
    staged: Staged,
    body_ended: bool,
    unflushed: bool,
}

/// The first frame of a body, if it was there at once.
pub(super) type First = Poll<Option<Result<Frame<Bytes>, io::Error>>>;

impl Upload {
    pub(super) fn new(head: &request::Parts, more: &[u8], body: Body, first: First) -> Result<Self, Fault> {
        let is_empty = matches!(first, Poll::Ready(None));
        let known = match &first {
            // What has been taken out of the body already is not in its own figure.
            Poll::Ready(Some(Ok(frame))) => {
                body.size_hint().exact().map(|it| it + frame.data_ref().map_or(0, Bytes::len) as u64)
            }
            _ => body.size_hint().exact(),
        };
        let framing = Framing::of(&head.headers, is_empty, known);
        let announced = if framing == Framing::Chunked { announced(&head.headers) } else { Vec::new() };
        let mut staged = Staged::new();
        write_head(&mut staged.before, head, more, framing);
        let mut upload = Self { body, framing, announced, staged, body_ended: false, unflushed: false };
        if let Poll::Ready(first) = first {
            upload.accept(first)?;
        }
        Ok(upload)
    }

    /// Resolves when all of it has been handed to `stream`.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        written: &mut u64,
    ) -> Poll<Result<(), Fault>> {
        loop {
            while !self.staged.is_empty() {
                let count = ready!(self.staged.poll_write(cx, stream)).map_err(Fault::Write)?;
                *written += count as u64;
                self.unflushed = true;
            }
            if self.body_ended {
                ready!(self.poll_flush(cx, stream))?;
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => self.accept(frame)?,
                Poll::Pending => {
                    ready!(self.poll_flush(cx, stream))?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_flush<S: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<Result<(), Fault>> {
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx)).map_err(Fault::Write)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn accept(&mut self, frame: Option<Result<Frame<Bytes>, io::Error>>) -> Result<(), Fault> {
        match frame.transpose().map_err(Fault::Body)? {
            None => self.end(&HeaderMap::new()),
            Some(frame) => match frame.into_data() {
                Ok(data) => self.data(data),
                Err(frame) => self.end(&frame.into_trailers().unwrap_or_default()),
            },
        }
    }

    fn data(&mut self, data: Bytes) -> Result<(), Fault> {
        match &mut self.framing {
            _ if data.is_empty() => return Ok(()),
            Framing::Length(left) => {
                let length = data.len() as u64;
                *left = left.checked_sub(length).ok_or_else(|| misframed("longer"))?;
                self.staged.put(data, b"");
            }
            Framing::Chunked => {
                write_chunk_size(&mut self.staged.before, data.len());
                self.staged.put(data, b"\r\n");
            }
            Framing::None => return Err(misframed("longer")),
        }
        if self.body.is_end_stream() { self.end(&HeaderMap::new()) } else { Ok(()) }
    }

    fn end(&mut self, trailers: &HeaderMap) -> Result<(), Fault> {
        self.body_ended = true;
        match self.framing {
            Framing::None | Framing::Length(0) => Ok(()),
            Framing::Length(_) => Err(misframed("shorter")),
            Framing::Chunked => {
                write_end(&mut self.staged.last, trailers, &self.announced);
                Ok(())
            }
        }
    }
}

fn misframed(how: &str) -> Fault {
    Fault::Body(io::Error::new(io::ErrorKind::InvalidData, format!("the request body is {how} than it said")))
}
