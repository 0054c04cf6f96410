//! The head of an answer as a HEADERS frame (RFC 9114, 7.2.2; RFC 9204). Pure. Without the dynamic table and without Huffman's
//! code: what `h3` spends on that for each answer is more than all the rest of a small one, and saves some fifty bytes.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// A client may bound the size of a head, which only `h3` knows; no client is known to bound it so low.
const SECTION_MAX: usize = 4 << 10;
/// What a field counts for beside its bytes (RFC 9114, 4.2.2).
const FIELD_EXTRA: usize = 32;

const HEADERS: u8 = 0x01;
/// The static table's first line for `:status`.
const STATUS: u64 = 24;

/// A name of the static table: its first line, and the lines that have a value as well.
struct Known {
    name: HeaderName,
    line: u64,
    values: &'static [(&'static [u8], u64)],
}

const fn known(name: HeaderName, line: u64, values: &'static [(&'static [u8], u64)]) -> Known {
    Known { name, line, values }
}

/// Those that answers have (RFC 9204, appendix A), the most frequent first.
static KNOWN: [Known; 21] = [
    known(header::DATE, 6, &[]),
    known(header::CONTENT_LENGTH, 4, &[(b"0", 4)]),
    known(
        header::CONTENT_TYPE,
        44,
        &[
            (b"text/html; charset=utf-8", 52),
            (b"application/json", 46),
            (b"application/javascript", 45),
            (b"text/css", 51),
            (b"text/plain", 53),
            (b"image/png", 50),
            (b"image/jpeg", 49),
            (b"image/gif", 48),
        ],
    ),
    known(header::SERVER, 92, &[]),
    known(header::ETAG, 7, &[]),
    known(header::LAST_MODIFIED, 10, &[]),
    known(header::ACCEPT_RANGES, 32, &[(b"bytes", 32)]),
    known(header::VARY, 59, &[(b"accept-encoding", 59), (b"origin", 60)]),
    known(header::CONTENT_ENCODING, 42, &[(b"br", 42), (b"gzip", 43)]),
    known(
        header::CACHE_CONTROL,
        36,
        &[
            (b"max-age=0", 36),
            (b"max-age=2592000", 37),
            (b"max-age=604800", 38),
            (b"no-cache", 39),
            (b"no-store", 40),
            (b"public, max-age=31536000", 41),
        ],
    ),
    known(header::SET_COOKIE, 14, &[]),
    known(header::LOCATION, 12, &[]),
    known(header::LINK, 11, &[]),
    known(header::AGE, 2, &[(b"0", 2)]),
    known(header::ALT_SVC, 83, &[(b"clear", 83)]),
    known(header::STRICT_TRANSPORT_SECURITY, 56, &[(b"max-age=31536000", 56)]),
    known(header::X_CONTENT_TYPE_OPTIONS, 61, &[(b"nosniff", 61)]),
    known(header::X_FRAME_OPTIONS, 97, &[(b"deny", 97), (b"sameorigin", 98)]),
    known(header::CONTENT_SECURITY_POLICY, 85, &[]),
    known(header::CONTENT_DISPOSITION, 3, &[]),
    known(header::ACCESS_CONTROL_ALLOW_ORIGIN, 35, &[(b"*", 35)]),
];

/// `None`: it is so large that the client may have something against it.
pub(super) fn head(status: StatusCode, headers: &HeaderMap) -> Option<BytesMut> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_EXTRA).sum();
    if bytes > SECTION_MAX {
        return None;
    }
    let mut frame = BytesMut::with_capacity(64 + bytes);
    // The length, in two bytes, comes when it is known; then there is nothing of the dynamic table.
    frame.put_slice(&[HEADERS, 0, 0, 0, 0]);
    put_status(&mut frame, status);
    for (name, value) in headers {
        put_field(&mut frame, name, value);
    }
    let length = u16::try_from(frame.len() - 3).ok().filter(|it| *it < 1 << 14)?;
    frame[1..3].copy_from_slice(&(length | 0x4000).to_be_bytes());
    Some(frame)
}

fn put_status(into: &mut BytesMut, status: StatusCode) {
    let line = match status.as_u16() {
        103 => 24,
        200 => 25,
        304 => 26,
        404 => 27,
        503 => 28,
        100 => 63,
        204 => 64,
        206 => 65,
        302 => 66,
        400 => 67,
        403 => 68,
        421 => 69,
        425 => 70,
        500 => 71,
        _ => {
            put_number(into, 0x50, 4, STATUS);
            return put_text(into, status.as_str().as_bytes());
        }
    };
    put_number(into, 0xc0, 6, line);
}

fn put_field(into: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    // Nobody on the way may keep it in a table.
    let never = if value.is_sensitive() { 0x10 } else { 0 };
    match KNOWN.iter().find(|it| it.name == name) {
        Some(known) => {
            let whole = known.values.iter().find(|(it, _)| *it == value.as_bytes());
            if let Some((_, line)) = whole.filter(|_| never == 0) {
                return put_number(into, 0xc0, 6, *line);
            }
            // RFC 9204, 4.5.4: a name of the static table.
            put_number(into, 0x50 | never << 1, 4, known.line);
        }
        None => {
            // RFC 9204, 4.5.6.
            put_number(into, 0x20 | never, 3, name.as_str().len() as u64);
            into.put_slice(name.as_str().as_bytes());
        }
    }
    put_text(into, value.as_bytes());
}

fn put_text(into: &mut BytesMut, text: &[u8]) {
    put_number(into, 0, 7, text.len() as u64);
    into.put_slice(text);
}

/// RFC 7541, 5.1: in what `first` leaves of its byte, and in as many more as it takes.
fn put_number(into: &mut BytesMut, first: u8, bits: u32, number: u64) {
    let most = (1_u64 << bits) - 1;
    if number < most {
        return into.put_u8(first | number as u8);
    }
    into.put_u8(first | most as u8);
    let mut rest = number - most;
    while rest >= 0x80 {
        into.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    into.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|it| format!("{it:02x}")).collect()
    }

    #[test]
    fn numbers_are_those_of_the_specification() {
        // RFC 7541, C.1.
        for (number, bits, expected) in [(10, 5, "0a"), (1337, 5, "1f9a0a"), (42, 8, "2a"), (15, 4, "0f00")] {
            let mut bytes = BytesMut::new();
            put_number(&mut bytes, 0, bits, number);
            assert_eq!(hex(&bytes), expected, "{number}");
        }
    }

    #[test]
    fn lines_are_indexed_named_or_spelled() {
        let check = |status: u16, fields: &[(&'static str, &str)], expected: &str| {
            let fields = fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            let head = head(StatusCode::from_u16(status).unwrap(), &fields.collect()).unwrap();
            let length = u16::from_be_bytes([head[1] & 0x3f, head[2]]);
            assert_eq!((head[0], head[1] >> 6, usize::from(length)), (1, 1, head.len() - 3));
            assert_eq!(hex(&head[3..]), format!("0000{expected}"), "{fields:?}", fields = expected);
        };
        check(200, &[], "d9");
        check(500, &[], "ff08");
        check(418, &[], &format!("5f0903{}", hex(b"418")));
        check(200, &[("accept-ranges", "bytes")], "d9e0");
        check(200, &[("accept-ranges", "none")], &format!("d95f1104{}", hex(b"none")));
        check(200, &[("etag", "\"a\"")], &format!("d95703{}", hex(b"\"a\"")));
        check(200, &[("x-a", "b")], &format!("d923{}01{}", hex(b"x-a"), hex(b"b")));
        check(200, &[("x-longer", "")], &format!("d92701{}00", hex(b"x-longer")));
    }

    #[test]
    fn a_secret_is_kept_in_no_table() {
        let mut value = HeaderValue::from_static("bytes");
        value.set_sensitive(true);
        let head = head(StatusCode::OK, &HeaderMap::from_iter([(header::ACCEPT_RANGES, value)])).unwrap();
        assert_eq!(hex(&head[5..]), format!("d97f1105{}", hex(b"bytes")));
    }

    #[test]
    fn a_large_head_is_left_to_the_library() {
        let headers = HeaderMap::from_iter([(header::ETAG, "x".repeat(SECTION_MAX).parse().unwrap())]);
        assert!(head(StatusCode::OK, &headers).is_none());
    }
}
