//! A request at first sight: is it a GET without a body, or a POST whose body has come with it, that asks for nothing but an
//! answer, written in a way that nobody could read differently? Pure. A "no" costs nothing but time: the gate and the parser judge the same bytes then.
//!
//! What is answered from the shelf is safe because it is found by the exact bytes of host and target: those that are found
//! have been judged before. What is not found there is held against the letter of the gate (`direct`).

use std::mem::MaybeUninit;

use config::UnderscoreHeaders;
use http::Method;
use httparse::{Header, Request, Status};

use crate::{
    net::{NAME_MAX, canonical_length, is_named},
    snapshot::Settings,
};

/// More fields than browsers send.
const FIELDS_MAX: usize = 48;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verb {
    #[default]
    Get,
    Post,
}

impl Verb {
    pub(super) fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plain<'a> {
    pub(super) verb: Verb,
    /// Of the head, its empty line included.
    pub(super) length: usize,
    /// All that follows the head and belongs to it.
    pub(super) content: &'a [u8],
    pub(super) target: &'a str,
    pub(super) fields: &'a [Header<'a>],
    pub(super) host: &'a [u8],
    pub(super) accept_encoding: &'a [u8],
    pub(super) if_none_match: Option<&'a [u8]>,
    pub(super) referer: &'a [u8],
    pub(super) user_agent: &'a [u8],
    /// It wishes for more than what is at hand.
    pub(super) is_particular: bool,
    /// The client wants nothing after this.
    pub(super) is_last: bool,
}

impl Plain<'_> {
    /// Head and content.
    pub(super) fn whole(&self) -> usize {
        self.length + self.content.len()
    }
}

/// Room for the fields of a head.
pub(super) struct Fields<'a>([MaybeUninit<Header<'a>>; FIELDS_MAX]);

impl Default for Fields<'_> {
    fn default() -> Self {
        Self([const { MaybeUninit::uninit() }; FIELDS_MAX])
    }
}

/// `None`: not plain, or not whole yet.
pub(super) fn plain<'a>(bytes: &'a [u8], settings: &Settings, fields: &'a mut Fields<'a>) -> Option<Plain<'a>> {
    let mut request = Request::new(&mut []);
    // The parser would skip empty lines.
    let verb = match bytes {
        [b'G', b'E', b'T', b' ', b'/', ..] => Verb::Get,
        [b'P', b'O', b'S', b'T', b' ', b'/', ..] => Verb::Post,
        _ => return None,
    };
    let Ok(Status::Complete(length)) = request.parse_with_uninit_headers(bytes, &mut fields.0) else { return None };
    let (head, fields): (_, &'a [Header<'a>]) = (&bytes[..length], request.headers);
    let is_short = length <= settings.header_bytes_max && fields.len() <= settings.headers_max;
    if request.version != Some(1) || !is_short || !is_beyond_doubt(head) {
        return None;
    }
    let is_particular = verb == Verb::Post;
    let mut plain = Plain { verb, length, target: request.path?, fields, is_particular, ..Plain::default() };
    let mut seen = Seen::default();
    for field in fields {
        take(field, &mut plain, &mut seen, settings.underscore_headers)?;
    }
    plain.content = content(&bytes[length..], verb, seen.content_length, settings.request_bytes_max)?;
    seen.host.then_some(plain)
}

/// What of the bytes behind a head is its content; `None` when the parser has to see to it, or to what is to come.
fn content<'a>(rest: &'a [u8], verb: Verb, said: Option<&[u8]>, most: u64) -> Option<&'a [u8]> {
    match (verb, said) {
        (Verb::Get, None) => Some(&[]),
        (Verb::Post, Some(said)) => {
            let length = canonical_length(said).filter(|it| most == 0 || *it <= most)?;
            rest.get(..usize::try_from(length).ok()?)
        }
        _ => None,
    }
}

/// The parser takes a bare LF for the end of a line, and bytes that are no text.
fn is_beyond_doubt(head: &[u8]) -> bool {
    head.is_ascii() && memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}

#[derive(Default)]
struct Seen<'a> {
    host: bool,
    content_length: Option<&'a [u8]>,
    accept_encoding: bool,
    user_agent: bool,
    referer: bool,
}

/// Whether it is the first of its kind.
fn first(seen: &mut bool) -> bool {
    !std::mem::replace(seen, true)
}

/// `None`: this field makes the request one for the parser.
fn take<'a>(
    field: &Header<'a>,
    plain: &mut Plain<'a>,
    seen: &mut Seen<'a>,
    underscores: UnderscoreHeaders,
) -> Option<()> {
    let (name, value) = (field.name, field.value);
    let is = |known| is_named(name, known);
    match name.len() {
        4 if is("host") => {
            plain.host = value;
            return first(&mut seen.host).then_some(());
        }
        2 if is("te") => return None,
        5 if is("range") => plain.is_particular = true,
        6 if is("expect") => return None,
        7 if is("upgrade") => return None,
        7 if is("referer") && first(&mut seen.referer) => plain.referer = value,
        8 if is("if-match") || is("if-range") => plain.is_particular = true,
        10 if is("connection") && value.eq_ignore_ascii_case(b"close") => plain.is_last = true,
        10 if is("connection") => return value.eq_ignore_ascii_case(b"keep-alive").then_some(()),
        10 if is("user-agent") && first(&mut seen.user_agent) => plain.user_agent = value,
        13 if is("if-none-match") => plain.is_particular |= plain.if_none_match.replace(value).is_some(),
        14 if is("content-length") => return seen.content_length.replace(value).is_none().then_some(()),
        15 if is("accept-encoding") => {
            plain.accept_encoding = value;
            return first(&mut seen.accept_encoding).then_some(());
        }
        // RFC 9110, 13.1.3: not heard when there is an If-None-Match.
        17 if is("if-modified-since") => plain.is_particular |= plain.if_none_match.is_none(),
        17 if is("transfer-encoding") => return None,
        19 if is("if-unmodified-since") => plain.is_particular = true,
        // The gate refuses it.
        length if length > NAME_MAX => return None,
        _ => {}
    }
    (underscores == UnderscoreHeaders::Keep || !name.contains('_')).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::head::tests::settings;

    fn is_plain(head: &str) -> bool {
        let settings = Settings { header_bytes_max: 1000, headers_max: 10, ..settings() };
        plain(head.as_bytes(), &settings, &mut Fields::default()).is_some()
    }

    #[test]
    fn what_the_record_and_the_answer_need_is_read() {
        let head = "GET /a?b HTTP/1.1\r\nHost: a.test:80\r\nUser-Agent: one\r\nuser-agent: two\r\nReferer: r\r\n\
                    Accept-Encoding: gzip, br\r\nIf-None-Match: \"x\"\r\nConnection: Keep-Alive\r\n\r\nGET";
        let settings = Settings { header_bytes_max: 1000, headers_max: 10, ..settings() };
        let expected = Plain {
            verb: Verb::Get,
            length: head.len() - 3,
            content: b"",
            target: "/a?b",
            host: b"a.test:80",
            accept_encoding: b"gzip, br",
            if_none_match: Some(b"\"x\""),
            referer: b"r",
            user_agent: b"one",
            is_particular: false,
            is_last: false,
            fields: &[],
        };
        let mut fields = Fields::default();
        let plain = plain(head.as_bytes(), &settings, &mut fields).expect("it is plain");
        assert_eq!((plain.fields.len(), plain.fields[1].name), (7, "User-Agent"));
        assert_eq!(Plain { fields: &[], ..plain }, expected);
    }

    /// Fields of a plain request are handed on without another look.
    #[test]
    fn values_are_those_of_the_gate() {
        for byte in (1..=127).filter(|it| !b"\r\n".contains(it)) {
            let value = [b"a", &[byte][..], b"b"].concat();
            let head = [b"GET / HTTP/1.1\r\nhost: a\r\nx:  ", &value[..], b" \t\r\n\r\n"].concat();
            let settings = Settings { header_bytes_max: 1000, headers_max: 10, ..settings() };
            let mut fields = Fields::default();
            let plain = plain(&head, &settings, &mut fields);
            assert_eq!(plain.is_some(), crate::net::is_field_value(&value), "{byte}");
            assert!(plain.is_none_or(|it| it.fields[1].value == value), "{byte}");
        }
    }

    #[test]
    fn a_client_may_say_that_it_wants_nothing_more() {
        let settings = Settings { header_bytes_max: 1000, headers_max: 10, ..settings() };
        for (fields, expected) in [
            ("connection: close", true),
            ("Connection: Close\r\nconnection: keep-alive", true),
            ("connection: keep-alive", false),
            ("x: close", false),
        ] {
            let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n");
            let mut room = Fields::default();
            let is_last = plain(head.as_bytes(), &settings, &mut room).map(|it| it.is_last);
            assert_eq!(is_last, Some(expected), "{fields}");
        }
    }

    #[test]
    fn content_that_has_come_with_its_head_belongs_to_it() {
        let settings = Settings { header_bytes_max: 1000, headers_max: 10, request_bytes_max: 20, ..settings() };
        let check = |fields: &str, rest: &str, expected: Option<&str>| {
            let head = format!("POST /a HTTP/1.1\r\nhost: a\r\n{fields}\r\n{rest}");
            let mut room = Fields::default();
            let plain = plain(head.as_bytes(), &settings, &mut room);
            let content = plain.as_ref().map(|it| str::from_utf8(it.content).expect("text"));
            assert_eq!(content, expected, "{fields} {rest}");
            assert!(plain.is_none_or(|it| it.is_particular && it.whole() == it.length + it.content.len()));
        };
        check("content-length: 5\r\n", "hello", Some("hello"));
        check("Content-Length: 5\r\n", "helloGET / ", Some("hello"));
        check("content-length: 0\r\n", "", Some(""));
        check("content-length: 5\r\n", "hell", None);
        check("content-length: 20\r\n", "12345678901234567890", Some("12345678901234567890"));
        check("content-length: 21\r\n", "123456789012345678901", None);
        check("content-length: 5\r\ncontent-length: 5\r\n", "hello", None);
        check("content-length: 5, 5\r\n", "hello", None);
        check("content-length: +5\r\n", "hello", None);
        check("content-length: -0\r\n", "", None);
        check("content-length: 05\r\n", "hello", None);
        check("content-length: 00\r\n", "", None);
        check("content-length: 99999999999999999999\r\n", "hello", None);
        check("content-length: 5\r\ntransfer-encoding: chunked\r\n", "hello", None);
        check("content-length: 5\r\nexpect: 100-continue\r\n", "hello", None);
        check("", "", None);
    }

    #[test]
    fn what_the_gate_refuses_is_not_plain() {
        let settings = Settings { header_bytes_max: 10_000, headers_max: 10, ..settings() };
        for (length, expected) in [(NAME_MAX, true), (NAME_MAX + 1, false)] {
            let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{}: x\r\n\r\n", "x".repeat(length));
            let is_plain = plain(head.as_bytes(), &settings, &mut Fields::default()).is_some();
            assert_eq!(is_plain, expected, "{length}");
        }
    }

    #[test]
    fn what_asks_for_more_than_the_whole_is_not_for_the_shelf() {
        let settings = Settings { header_bytes_max: 1000, headers_max: 10, ..settings() };
        for (field, expected) in [
            ("range: bytes=0-1", true),
            ("if-range: x", true),
            ("if-match: x", true),
            ("if-modified-since: c", true),
            ("if-unmodified-since: c", true),
            ("if-none-match: a\r\nif-none-match: b", true),
            ("if-none-match: a\r\nif-modified-since: c", false),
            ("accept: */*", false),
        ] {
            let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{field}\r\n\r\n");
            let mut fields = Fields::default();
            let is_particular = plain(head.as_bytes(), &settings, &mut fields).map(|it| it.is_particular);
            assert_eq!(is_particular, Some(expected), "{field}");
        }
    }

    #[test]
    fn everything_else_is_for_the_parser() {
        assert!(is_plain("GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert!(is_plain("GET / HTTP/1.1\r\nhost: a\r\naccept: */*\r\nx-y: z\r\n\r\n"));
        assert!(is_plain("GET / HTTP/1.1\r\nhost: a\r\nif-none-match: b\r\nif-modified-since: c\r\n\r\n"));
        for line in [
            "POST / HTTP/1.1",
            "PUT / HTTP/1.1",
            "HEAD / HTTP/1.1",
            "get / HTTP/1.1",
            "GET / HTTP/1.0",
            "GET / HTTP/1.2",
            "GET  / HTTP/1.1",
            "GET http://a/ HTTP/1.1",
            "GET * HTTP/1.1",
            " GET / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /",
        ] {
            assert!(!is_plain(&format!("{line}\r\nhost: a\r\n\r\n")), "{line}");
        }
        for field in [
            "host: a",
            "content-length: 0",
            "transfer-encoding: chunked",
            "expect: 100-continue",
            "upgrade: h2c",
            "connection: close, upgrade",
            "connection: keep-alive, upgrade",
            "te: trailers",
            "a_b: c",
            "a : b",
            " folded",
            "a: b\u{e4}",
            "a: \u{1}",
            "no colon",
            "a: b\n",
            "a: b\rc",
        ] {
            assert!(!is_plain(&format!("GET / HTTP/1.1\r\nhost: a\r\n{field}\r\n\r\n")), "{field:?}");
        }
        for head in [
            "",
            "G",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\nhost: a\n\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\r",
        ] {
            assert!(!is_plain(head), "{head:?}");
        }
        let many = "a: b\r\n".repeat(10);
        assert!(!is_plain(&format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n")), "too many fields");
        let long = "a".repeat(1000);
        assert!(!is_plain(&format!("GET / HTTP/1.1\r\nhost: a\r\nb: {long}\r\n\r\n")), "too long");
    }
}
