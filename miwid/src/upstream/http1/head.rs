//! The head of an answer: where it ends, what it says, and how the body behind it is framed (RFC 9112, 6.3). Pure. The
//! verdict on some bytes is the same however they arrive.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use httparse::{ParserConfig, Status};

/// An app may answer with more headers than a client may send.
const HEAD_MAX: usize = 400 * 1024;
pub(super) const FIELDS_MAX: usize = 100;

/// The answer is not HTTP/1.1, in one sentence for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotHttp(pub &'static str);

/// How the body of an answer is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    /// By the end of the connection.
    Close,
}

/// Whether the connection may carry another exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    Close,
}

#[derive(Debug, PartialEq)]
pub(super) struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub framing: Framing,
    pub after: After,
}

impl Head {
    /// Another head follows, of the real answer.
    pub(super) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Reads heads from bytes that arrive in pieces.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Bytes in which no head ends.
    scanned: usize,
    /// Among them is a whole status line.
    begun: bool,
}

impl Heads {
    /// Takes a head off the bytes. `None`: its end has not come.
    pub(super) fn next(&mut self, bytes: &mut BytesMut, method: &Method) -> Result<Option<Head>, NotHttp> {
        // A long head in small pieces is not read from its beginning with each of them.
        if bytes.len() == self.scanned || (self.begun && !self.ends_in(bytes)) {
            return self.bounded(bytes);
        }
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields);
        match status.map_err(refusal)? {
            Status::Partial => self.bounded(bytes),
            Status::Complete(length) if length > HEAD_MAX => Err(NotHttp("its head is too large")),
            Status::Complete(length) => {
                let spans = Spans::of(&parsed, bytes);
                *self = Self::default();
                spans.head(bytes.split_to(length).freeze(), method).map(Some)
            }
        }
    }

    /// The connection has ended: whether what came of a head was one.
    pub(super) fn cut(bytes: &[u8]) -> Result<(), NotHttp> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields);
        status.map(drop).map_err(refusal)
    }

    fn bounded(&mut self, bytes: &[u8]) -> Result<Option<Head>, NotHttp> {
        self.scanned = bytes.len();
        self.begun |= memchr::memchr(b'\n', bytes).is_some();
        if bytes.len() > HEAD_MAX { Err(NotHttp("its head is too large")) } else { Ok(None) }
    }

    /// An empty line is among the new bytes, or right before them.
    fn ends_in(&self, bytes: &[u8]) -> bool {
        let fresh = &bytes[self.scanned.saturating_sub(2)..];
        memchr::memchr_iter(b'\n', fresh).any(|it| {
            let before = fresh[..it].strip_suffix(b"\r").unwrap_or(&fresh[..it]);
            before.last().is_none_or(|it| *it == b'\n')
        })
    }
}

fn refusal(error: httparse::Error) -> NotHttp {
    NotHttp(match error {
        httparse::Error::Version => "it is not HTTP/1",
        httparse::Error::Status => "its status line is malformed",
        httparse::Error::TooManyHeaders => "it has too many headers",
        _ => "its head is malformed",
    })
}

/// Where in a head its parts stand.
struct Spans {
    code: u16,
    minor: u8,
    fields: [(u32, u32, u32, u32); FIELDS_MAX],
    count: usize,
}

impl Spans {
    fn of(parsed: &httparse::Response<'_, '_>, bytes: &[u8]) -> Self {
        let base = bytes.as_ptr().addr();
        // A head is shorter than 2^32 bytes.
        let span = |part: &[u8]| ((part.as_ptr().addr() - base) as u32, part.len() as u32);
        let mut fields = [(0, 0, 0, 0); FIELDS_MAX];
        for (at, field) in fields.iter_mut().zip(parsed.headers.iter()) {
            let (name, value) = (span(field.name.as_bytes()), span(field.value));
            *at = (name.0, name.1, value.0, value.1);
        }
        let (code, minor) = (parsed.code.unwrap_or(0), parsed.version.unwrap_or(0));
        Self { code, minor, fields, count: parsed.headers.len() }
    }

    fn head(&self, bytes: Bytes, method: &Method) -> Result<Head, NotHttp> {
        let malformed = |_| NotHttp("its head is malformed");
        let status = StatusCode::from_u16(self.code).map_err(|_| NotHttp("its status is not one"))?;
        let mut headers = HeaderMap::with_capacity(self.count + self.count / 2);
        for &(name, name_length, value, value_length) in &self.fields[..self.count] {
            let slice = |from: u32, length: u32| from as usize..from as usize + length as usize;
            let name = HeaderName::from_bytes(&bytes[slice(name, name_length)]).map_err(|_| malformed(()))?;
            let value = HeaderValue::from_maybe_shared(bytes.slice(slice(value, value_length)));
            headers.append(name, value.map_err(|_| malformed(()))?);
        }
        let old = self.minor == 0;
        let framing = framing(status, &headers, method, old)?;
        let after = after(status, &headers, framing, old);
        Ok(Head { status, headers, framing, after })
    }
}

fn framing(status: StatusCode, headers: &HeaderMap, method: &Method, old: bool) -> Result<Framing, NotHttp> {
    let bodiless = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || *method == Method::HEAD;
    if bodiless {
        return Ok(Framing::Length(0));
    }
    // The last line's last coding is the one that was applied last.
    if let Some(coding) = headers.get_all(header::TRANSFER_ENCODING).iter().next_back() {
        if old {
            return Err(NotHttp("HTTP/1.0 has no Transfer-Encoding"));
        }
        let last = coding.as_bytes().rsplit(|it| *it == b',').next().unwrap_or_default();
        let chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return Ok(if chunked { Framing::Chunked } else { Framing::Close });
    }
    let mut lengths = lengths(headers);
    let Some(first) = lengths.next() else { return Ok(Framing::Close) };
    let length =
        first.filter(|_| lengths.all(|it| it == first)).ok_or(NotHttp("its Content-Length is not a number"))?;
    Ok(Framing::Length(length))
}

/// All that is said; a list or a repetition of the same number counts as that number.
fn lengths(headers: &HeaderMap) -> impl Iterator<Item = Option<u64>> {
    let said = headers.get_all(header::CONTENT_LENGTH).iter().flat_map(|it| it.as_bytes().split(|it| *it == b','));
    said.map(|it| crate::net::content_length(it.trim_ascii()))
}

fn after(status: StatusCode, headers: &HeaderMap, framing: Framing, old: bool) -> After {
    let says = |token: &[u8]| {
        let mut tokens =
            headers.get_all(header::CONNECTION).iter().flat_map(|it| it.as_bytes().split(|it| *it == b','));
        tokens.any(|it| it.trim_ascii().eq_ignore_ascii_case(token))
    };
    // Where a message is framed in two ways, the other end may have meant the other one.
    let doubtful = headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH);
    let closes = framing == Framing::Close
        || status == StatusCode::SWITCHING_PROTOCOLS
        || doubtful
        || says(b"close")
        || (old && !says(b"keep-alive"));
    if closes { After::Close } else { After::Keep }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
