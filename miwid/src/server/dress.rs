//! The head of an answer that is handed on, as the client gets it. Pure. The same as `finish` makes of a map; what a map would
//! be needed for is refused.

use http::{HeaderName, StatusCode, header};
use httparse::Header;

use super::{clock::DATE_BYTES, direct::status_line};
use crate::{
    encoding::Rules,
    exchange::{ExtraHeaders, Scheme, headers::CACHE_TAG},
    net::{is_named, put_line},
    upstream::PlainHead,
};

/// How the body of an answer is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Its status has none.
    None,
    Length(u64),
    Chunked,
}

/// What every answer gets.
pub(super) struct Dress<'a> {
    pub(super) names_server: bool,
    pub(super) hides_cache_tag: bool,
    pub(super) request_id: &'a [u8],
    pub(super) alternative: Option<&'a [u8]>,
    pub(super) extra: Option<&'a ExtraHeaders>,
    pub(super) scheme: Scheme,
    pub(super) rules: Option<&'a Rules>,
    /// The connection ends with it.
    pub(super) is_last: bool,
}

impl Dress<'_> {
    /// `None`: it is not for us, and nothing has been written. `date`: for an answer that has none.
    pub(super) fn write(
        &self,
        head: &PlainHead<'_>,
        date: impl Fn() -> [u8; DATE_BYTES],
        into: &mut Vec<u8>,
    ) -> Option<Framing> {
        let begun = into.len();
        let written = self.try_write(head, date, into);
        if written.is_none() {
            into.truncate(begun);
        }
        written
    }

    fn try_write(
        &self,
        head: &PlainHead<'_>,
        date: impl Fn() -> [u8; DATE_BYTES],
        into: &mut Vec<u8>,
    ) -> Option<Framing> {
        status_line(into, head.status);
        if self.rules.is_some() && head.status == StatusCode::NOT_MODIFIED {
            return None;
        }
        let mut is_dated = false;
        for field in head.fields {
            let fate = self.judge(field, head.status)?;
            is_dated |= fate == Fate::Date;
            if fate != Fate::Drop {
                put_line(into, field.name.as_bytes(), field.value);
            }
        }
        is_dated |= self.add(head.fields, into);
        if !is_dated {
            put_line(into, b"date", &date());
        }
        if self.is_last {
            put_line(into, b"connection", b"close");
        }
        let framing = match head.length {
            _ if head.status == StatusCode::NOT_MODIFIED => Framing::None,
            Some(length) => Framing::Length(length),
            None => {
                put_line(into, b"transfer-encoding", b"chunked");
                Framing::Chunked
            }
        };
        into.extend_from_slice(b"\r\n");
        Some(framing)
    }

    /// `None`: it takes more than handing it on.
    fn judge(&self, field: &Header<'_>, status: StatusCode) -> Option<Fate> {
        let is = |known| is_named(field.name, known);
        let drop_if = |it: bool| Some(if it { Fate::Drop } else { Fate::Keep });
        if self.extra.is_some_and(|it| it.removes(field.name)) {
            return Some(Fate::Drop);
        }
        match field.name.len() {
            2 => drop_if(is("te")),
            4 if is("date") => Some(Fate::Date),
            6 => drop_if(self.names_server && is("server")),
            7 => drop_if(is("upgrade") || (self.alternative.is_some() && is("alt-svc"))),
            9 => drop_if(self.hides_cache_tag && is("cache-tag")),
            10 => drop_if(is("connection") || is("keep-alive")),
            12 if is("content-type") => self.hands_on(field.value).then_some(Fate::Keep),
            12 => drop_if(is("x-request-id")),
            14 => drop_if(status == StatusCode::NOT_MODIFIED && is("content-length")),
            16 => drop_if(is("proxy-connection")),
            17 => drop_if(is("transfer-encoding")),
            19 => drop_if(is("proxy-authorization")),
            _ => Some(Fate::Keep),
        }
    }

    /// Streams have their own patience, and what may be encoded is.
    fn hands_on(&self, kind: &[u8]) -> bool {
        let is = |known: &[u8]| kind.starts_with(known);
        !is(b"text/event-stream") && !is(b"application/grpc") && !self.rules.is_some_and(|it| it.covers(kind))
    }

    /// What the answer does not say by itself; true when a date is among it.
    fn add(&self, said: &[Header<'_>], into: &mut Vec<u8>) -> bool {
        let removes = |name: &str| self.extra.is_some_and(|it| it.removes(name));
        let server = self.names_server.then_some(&b"miwid"[..]);
        let ours = [("server", server), ("x-request-id", Some(self.request_id)), ("alt-svc", self.alternative)];
        let ours = ours.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in ours.clone().filter(|it| !removes(it.0)) {
            put_line(into, name.as_bytes(), value);
        }
        let Some(extra) = self.extra else { return false };
        let is_said = |name: &str| {
            ours.clone().any(|it| it.0 == name) || said.iter().any(|it| it.name.eq_ignore_ascii_case(name))
        };
        let mut is_dated = false;
        let is_hidden = |name: &HeaderName| self.hides_cache_tag && *name == CACHE_TAG;
        for (name, value) in extra.added(self.scheme).filter(|it| !is_said(it.0.as_str()) && !is_hidden(&it.0)) {
            is_dated |= *name == header::DATE;
            put_line(into, name.as_str().as_bytes(), value.as_bytes());
        }
        is_dated
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Date,
    Drop,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Cloudflare takes its tags off, which others would see.
    #[test]
    fn a_cache_tag_of_ours_is_as_hidden_as_one_of_theirs() {
        let extra = ExtraHeaders::new([(&"cache-tag".to_owned(), &"shop".to_owned())]).unwrap();
        for (said, hides_cache_tag, expected) in [
            (None, true, None),
            (Some("app"), true, None),
            (None, false, Some("shop")),
            (Some("app"), false, Some("app")),
        ] {
            let dress = Dress {
                names_server: false,
                hides_cache_tag,
                request_id: b"id",
                alternative: None,
                extra: Some(&extra),
                scheme: Scheme::Http,
                rules: None,
                is_last: false,
            };
            let fields: Vec<_> =
                said.map(|it| Header { name: "Cache-Tag", value: it.as_bytes() }).into_iter().collect();
            let head = PlainHead { status: StatusCode::OK, fields: &fields, length: Some(0) };
            let mut into = Vec::new();
            dress.write(&head, || [b'x'; DATE_BYTES], &mut into).unwrap();
            let written = String::from_utf8(into).unwrap();
            let tags: Vec<_> = written.lines().filter_map(|it| it.strip_prefix("cache-tag: ")).collect();
            assert_eq!(tags, Vec::from_iter(expected), "{said:?} {hides_cache_tag}");
        }
    }
}
