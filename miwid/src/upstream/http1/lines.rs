//! An answer whose head can be handed on line by line, without a map in between. Pure. Whatever is not framed beyond doubt, or
//! is no last word, is left to be read as any other.

use std::mem::MaybeUninit;

use http::StatusCode;
use httparse::{Header, ParserConfig, Response, Status};

use super::head::{FIELDS_MAX, Framing};
use crate::net::{canonical_length, is_named};

/// The head of an answer that is framed by one length, or by chunks, on a connection that goes on.
pub struct PlainHead<'a> {
    pub status: StatusCode,
    pub fields: &'a [Header<'a>],
    /// `None`: in chunks.
    pub length: Option<u64>,
}

/// Shows the head at the beginning of `bytes` to `take`; its length, and how its body is framed, when that took it.
/// `None`: it is not plain, not whole, or was not taken.
pub(super) fn read(bytes: &[u8], take: impl FnOnce(&PlainHead<'_>) -> bool) -> Option<(usize, Framing)> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields);
    let Ok(Status::Complete(length)) = status else { return None };
    let head = plain(&parsed)?;
    // A 304 says how long the answer would have been.
    let framing = match head.length {
        _ if head.status == StatusCode::NOT_MODIFIED => Framing::Length(0),
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    };
    take(&head).then_some((length, framing))
}

fn plain<'a>(parsed: &'a Response<'a, 'a>) -> Option<PlainHead<'a>> {
    let status = StatusCode::from_u16(parsed.code?).ok()?;
    if parsed.version != Some(1) || status.is_informational() || status == StatusCode::NO_CONTENT {
        return None;
    }
    let (mut length, mut is_chunked) = (None, false);
    for Header { name, value } in parsed.headers.iter() {
        match name.len() {
            14 if is_named(name, "content-length") => {
                let is_first = length.replace(canonical_length(value)?).is_none();
                is_first.then_some(())?;
            }
            17 if is_named(name, "transfer-encoding") => {
                let is_first = !std::mem::replace(&mut is_chunked, true);
                (is_first && value.eq_ignore_ascii_case(b"chunked")).then_some(())?;
            }
            10 if is_named(name, "connection") => {
                value.eq_ignore_ascii_case(b"keep-alive").then_some(())?;
            }
            _ => {}
        }
    }
    let is_bodyless = status == StatusCode::NOT_MODIFIED;
    let is_framed = if is_bodyless { !is_chunked } else { is_chunked != length.is_some() };
    is_framed.then_some(PlainHead { status, fields: parsed.headers, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(head: &str) -> Option<Framing> {
        let mut seen = None;
        let read = read(head.as_bytes(), |it| {
            seen = Some(it.status);
            true
        });
        assert_eq!(read.is_some(), seen.is_some());
        assert!(read.is_none_or(|it| it.0 == head.len()), "{head:?}");
        read.map(|it| it.1)
    }

    #[test]
    fn what_is_framed_in_one_way_is_plain() {
        let check =
            |fields: &str, expected| assert_eq!(framed(&format!("HTTP/1.1 {fields}\r\n\r\n")), expected, "{fields}");
        check("200 OK\r\ncontent-length: 5", Some(Framing::Length(5)));
        check("200\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\nx: \u{e4}", Some(Framing::Length(0)));
        check("500 Oh\r\ntransfer-encoding: Chunked", Some(Framing::Chunked));
        check("304 Not Modified\r\netag: \"a\"", Some(Framing::Length(0)));
        check("304 Not Modified\r\ncontent-length: 9", Some(Framing::Length(0)));
    }

    #[test]
    fn everything_else_is_read_the_usual_way() {
        for head in [
            "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n",
            "HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 05\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive, x-a\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n",
            "SSH-2.0\r\n\r\n",
            "",
        ] {
            assert_eq!(framed(head), None, "{head:?}");
        }
    }

    #[test]
    fn what_nobody_takes_stays() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", |_| false), None);
    }
}
