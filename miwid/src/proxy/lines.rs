//! The head of a plain request, rewritten for an endpoint line by line. Pure. It says the same as what `headers` makes of a map,
//! and gives up where that would have to weigh something.

use std::time::Instant;

use httparse::Header;

use super::{headers::is_claim, stamp::Stamp};
use crate::net::{is_named, put_line};

/// A request from a client that speaks for itself alone, whose head has been held against the letter of the gate: no `TE`,
/// `Expect`, `Upgrade` or `Transfer-Encoding`, `Connection` says no more than keep-alive or close, and `Content-Length` is
/// there once and right, or there is no content.
pub struct PlainRequest<'a> {
    pub method: &'a str,
    /// What to ask the endpoint for.
    pub target: &'a str,
    pub fields: &'a [Header<'a>],
    pub stamp: Stamp<'a>,
    pub started: Instant,
}

/// `host`: what goes into `Host`. `None`: it takes more than this.
pub(super) fn write(request: &PlainRequest<'_>, host: &[u8], into: &mut Vec<u8>) -> Option<()> {
    for part in [request.method, " ", request.target, " HTTP/1.1\r\n"] {
        into.extend_from_slice(part.as_bytes());
    }
    let mut has_cookie = false;
    for field in request.fields {
        match judge(field.name, &mut has_cookie) {
            Judgement::Weigh => return None,
            Judgement::Drop => {}
            Judgement::Host => put_line(into, b"host", host),
            Judgement::Keep => put_line(into, field.name.as_bytes(), field.value),
        }
    }
    request.stamp.write(into);
    into.extend_from_slice(b"\r\n");
    Some(())
}

enum Judgement {
    Keep,
    Drop,
    Host,
    Weigh,
}

fn judge(name: &str, has_cookie: &mut bool) -> Judgement {
    let is = |known| is_named(name, known);
    match name.len() {
        3 if is("via") => Judgement::Weigh,
        4 if is("host") => Judgement::Host,
        // `Connection: close` names it.
        5 if is("close") => Judgement::Weigh,
        6 if is("cookie") => match std::mem::replace(has_cookie, true) {
            true => Judgement::Weigh,
            false => Judgement::Keep,
        },
        10 if is("connection") || is("keep-alive") => Judgement::Drop,
        16 if is("proxy-connection") => Judgement::Drop,
        19 if is("proxy-authorization") => Judgement::Drop,
        _ if name.as_bytes().contains(&b'_') => Judgement::Weigh,
        _ if may_claim(name) && is_claim(&name.to_ascii_lowercase()) => Judgement::Drop,
        _ => Judgement::Keep,
    }
}

/// No claim begins with another letter.
fn may_claim(name: &str) -> bool {
    matches!(name.as_bytes().first().map(u8::to_ascii_lowercase), Some(b'c' | b'f' | b't' | b'x'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::exchange::Scheme;

    fn written(fields: &[(&str, &str)]) -> Option<String> {
        let fields: Vec<_> = fields.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        let stamp = Stamp {
            peer: "192.0.2.7".parse().unwrap(),
            scheme: Scheme::Http,
            authority: "shop.example:8080",
            started_at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            request_id: b"id",
        };
        let mut bytes = Vec::new();
        write(
            &PlainRequest { method: "GET", target: "/a?b", fields: &fields, stamp, started: Instant::now() },
            b"127.0.0.1:3000",
            &mut bytes,
        )?;
        Some(String::from_utf8(bytes).unwrap())
    }

    const OURS: &str = "via: 1.1 miwid\r\nx-forwarded-for: 192.0.2.7\r\n\
        forwarded: for=192.0.2.7;host=\"shop.example:8080\";proto=http\r\nx-forwarded-proto: http\r\n\
        x-forwarded-host: shop.example:8080\r\nx-forwarded-port: 8080\r\nx-request-start: t=1700000000123\r\n\
        x-request-id: id\r\n\r\n";

    #[test]
    fn a_head_is_handed_on_with_ours_behind_it() {
        let head = written(&[("Host", "shop.example:8080"), ("Accept", "*/*"), ("X-A", "b"), ("Cookie", "c=d")]);
        let theirs = "GET /a?b HTTP/1.1\r\nhost: 127.0.0.1:3000\r\naccept: */*\r\nx-a: b\r\ncookie: c=d\r\n";
        assert_eq!(head.unwrap(), format!("{theirs}{OURS}"));
    }

    #[test]
    fn what_is_for_this_hop_and_what_nobody_believes_stays_here() {
        let dropped = [
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy-Authorization",
            "X-Forwarded-For",
            "X-Forwarded-Server",
            "Forwarded",
            "X-Real-IP",
            "True-Client-IP",
            "Fastly-Client-IP",
            "CF-Connecting-IP",
            "CF-Ray",
            "X-Request-Id",
            "X-Request-Start",
            "Front-End-Https",
        ];
        for name in dropped {
            assert_eq!(
                written(&[(name, "x"), ("host", "a")]).unwrap(),
                format!("GET /a?b HTTP/1.1\r\nhost: 127.0.0.1:3000\r\n{OURS}"),
                "{name}"
            );
        }
    }

    #[test]
    fn what_has_to_be_weighed_is_left() {
        let cookies = [("cookie", "a"), ("Cookie", "b")];
        for fields in [&[("Via", "1.1 miwid")][..], &cookies, &[("x_a", "b")], &[("Close", "x")]] {
            assert_eq!(written(fields), None, "{fields:?}");
        }
    }
}
