//! A request as bytes: its head, its chunks, its trailers. Pure. The head is written by the framing that the body has, so
//! that the two cannot disagree.

use std::io::Write;

use http::{HeaderMap, HeaderName, header, request};

use crate::net::content_length;

/// How the body of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none, and nothing says so.
    None,
    /// By the number that stands in the head already, or has to be written there.
    Length(u64),
    Chunked,
}

impl Framing {
    /// Of a body that may be empty after all, and may know its length.
    pub(super) fn of(headers: &HeaderMap, is_empty: bool, known: Option<u64>) -> Self {
        let said = headers.get(header::CONTENT_LENGTH).and_then(|it| content_length(it.as_bytes()));
        match said.or(known) {
            Some(length) if said.is_some() || !is_empty => Self::Length(length),
            _ if is_empty => Self::None,
            _ => Self::Chunked,
        }
    }
}

/// `more`: whole lines that go behind the fields of the head.
pub(super) fn write_head(into: &mut Vec<u8>, head: &request::Parts, more: &[u8], framing: Framing) {
    put(into, &[head.method.as_str().as_bytes(), b" ", head.uri.path().as_bytes()]);
    if let Some(query) = head.uri.query() {
        put(into, &[b"?", query.as_bytes()]);
    }
    into.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &head.headers {
        if *name != header::TRANSFER_ENCODING && *name != header::CONTENT_LENGTH {
            put(into, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
    }
    into.extend_from_slice(more);
    match framing {
        Framing::None => {}
        Framing::Length(length) => number(into, format_args!("content-length: {length}\r\n")),
        Framing::Chunked => into.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    into.extend_from_slice(b"\r\n");
}

pub(super) fn write_chunk_size(into: &mut Vec<u8>, size: usize) {
    number(into, format_args!("{size:x}\r\n"));
}

/// The last chunk, and those of the trailers that `announced` names: an upstream may take them for headers, so none goes
/// that says how a message is read or where it goes.
pub(super) fn write_end(into: &mut Vec<u8>, trailers: &HeaderMap, announced: &[HeaderName]) {
    const NEVER: [HeaderName; 12] = [
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::HOST,
        header::MAX_FORWARDS,
        header::SET_COOKIE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::TE,
    ];
    into.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.iter().filter(|(it, _)| announced.contains(it) && !NEVER.contains(it)) {
        put(into, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    into.extend_from_slice(b"\r\n");
}

/// The trailers that a request says will come.
pub(super) fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let names = headers.get_all(header::TRAILER).iter().flat_map(|it| it.as_bytes().split(|it| *it == b','));
    names.filter_map(|it| HeaderName::from_bytes(it.trim_ascii()).ok()).collect()
}

fn put(into: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        into.extend_from_slice(part);
    }
}

fn number(into: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = into.write_fmt(text);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::Request;

    use super::*;

    fn head(uri: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method("PUT").uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_head_is_framed_once() {
        let check = |fields: &[(&str, &str)], is_empty, known, expected: &str| {
            let head = head("/p?q", fields);
            let mut bytes = Vec::new();
            write_head(&mut bytes, &head, b"", Framing::of(&head.headers, is_empty, known));
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("PUT /p?q HTTP/1.1\r\nhost: a\r\n{expected}\r\n"));
        };
        check(&[("Host", "a")], true, None, "");
        check(&[("Host", "a")], false, None, "transfer-encoding: chunked\r\n");
        check(&[("Host", "a")], false, Some(3), "content-length: 3\r\n");
        check(&[("Host", "a"), ("content-length", "5")], false, None, "content-length: 5\r\n");
        check(&[("Host", "a"), ("content-length", "0")], true, Some(0), "content-length: 0\r\n");
        check(
            &[("content-length", "5"), ("transfer-encoding", "x"), ("host", "a")],
            false,
            None,
            "content-length: 5\r\n",
        );
    }

    #[test]
    fn every_form_of_a_target_is_written_as_it_is() {
        for (uri, expected) in [("*", "PUT * HTTP/1.1\r\n\r\n"), ("/?", "PUT /? HTTP/1.1\r\n\r\n")] {
            let mut bytes = Vec::new();
            write_head(&mut bytes, &head(uri, &[]), b"", Framing::None);
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
    }

    #[test]
    fn only_harmless_trailers_that_were_announced_go_on() {
        let head = head("/", &[("trailer", "X-Sum, Host"), ("trailer", "x-more")]);
        let mut trailers = HeaderMap::new();
        for name in ["x-sum", "host", "x-more", "x-forwarded-for"] {
            trailers.append(HeaderName::from_static(name), "7".parse().unwrap());
        }
        let mut bytes = Vec::new();
        write_end(&mut bytes, &trailers, &announced(&head.headers));
        let mut lines: Vec<_> = str::from_utf8(&bytes).unwrap().split("\r\n").collect();
        lines.sort_unstable();
        assert_eq!(lines, ["", "", "0", "x-more: 7", "x-sum: 7"]);
    }
}
