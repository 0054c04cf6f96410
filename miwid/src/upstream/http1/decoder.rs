//! The body of an answer, taken from bytes as its head frames it. Pure.

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::head::Framing;
use crate::net::{Flaw, Unchunk, Unchunked};

#[derive(Debug)]
pub(super) enum Decoder {
    Length(u64),
    Chunked(Unchunk),
    Close,
    Ended,
}

impl Decoder {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::Ended,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Unchunk::new()),
            Framing::Close => Self::Close,
        }
    }

    /// Takes what it gives off `bytes`. `None`: that needs more bytes, unless the body has ended.
    pub(super) fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame<Bytes>>, Flaw> {
        match self {
            Self::Length(_) | Self::Close if bytes.is_empty() => Ok(None),
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
                Ok(Some(Frame::data(bytes.split_to(taken).freeze())))
            }
            Self::Chunked(unchunk) => {
                let next = unchunk.next(bytes)?;
                if unchunk.has_ended() {
                    *self = Self::Ended;
                }
                Ok(match next {
                    Unchunked::Data(data) => Some(Frame::data(data)),
                    Unchunked::Trailers(trailers) => Some(Frame::trailers(trailers)),
                    Unchunked::More | Unchunked::End => None,
                })
            }
            Self::Close => Ok(Some(Frame::data(bytes.split().freeze()))),
            Self::Ended => Ok(None),
        }
    }

    /// The connection has ended. False: in the middle of the body.
    pub(super) fn cut(&mut self) -> bool {
        if matches!(self, Self::Close) {
            *self = Self::Ended;
        }
        self.has_ended()
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Bytes that are still to come, as far as is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::Close => None,
            Self::Ended => Some(0),
        }
    }

    /// What is left of a body that is framed by its length.
    pub(super) fn length(&self) -> Option<u64> {
        if let Self::Length(left) = self { Some(*left) } else { None }
    }

    /// So much of it went another way.
    pub(super) fn took(&mut self, count: u64) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(count);
            if *left == 0 {
                *self = Self::Ended;
            }
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
