//! Conditional requests in the order of RFC 9110 13.2.2. Pure: validators and headers in, a verdict out.
//!
//! What is easy to get wrong: `If-None-Match` compares weakly, `If-Match` and `If-Range` strongly, and a date is looked
//! at only when the matching entity-tag header is absent. Dates that do not parse are as if absent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use rustix::fs::Stat;

/// What identifies one state of one file.
#[derive(Clone, Debug)]
pub(super) struct Validators {
    /// Always strong: it changes with the inode, the size or the nanosecond of the last change.
    pub(super) etag: HeaderValue,
    /// In whole seconds, never in the future (RFC 9110 8.8.2.1). `None` before 1970 or beyond what HTTP can write.
    pub(super) modified: Option<u64>,
    pub(super) last_modified: Option<HeaderValue>,
    /// The date alone proves which state this is: it is more than a second old (RFC 9110 8.8.2.2).
    pub(super) modified_strong: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer as usual, with the `Range` header heard if the method is GET.
    Proceed,
    /// Answer as usual, whole: `If-Range` names another state.
    ProceedWhole,
    NotModified,
    PreconditionFailed,
}

/// 9999-12-31T23:59:59Z, the last second that an HTTP date can write.
pub(super) const DATE_MAX_SECONDS: u64 = 253_402_300_799;

// === impl Validators ===

impl Validators {
    pub(super) fn of(stat: &Stat, now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let modified = u64::try_from(stat.st_mtime).ok().map(|at| at.min(now)).filter(|&at| at <= DATE_MAX_SECONDS);
        let last_modified = modified.and_then(|at| {
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at));
            HeaderValue::try_from(date).ok()
        });
        let modified_strong = modified.is_some_and(|at| at + 1 < now);
        Self { etag: etag(stat), modified, last_modified, modified_strong }
    }
}

/// `"MTIME-NANOS-SIZE-INODE"` in hexadecimal. The inode tells apart files that a build wrote with a fixed date.
fn etag(stat: &Stat) -> HeaderValue {
    let mut text = Vec::with_capacity(48);
    text.push(b'"');
    for (at, number) in
        [stat.st_mtime as u64, stat.st_mtime_nsec, stat.st_size as u64, stat.st_ino].into_iter().enumerate()
    {
        if at > 0 {
            text.push(b'-');
        }
        hexadecimal(number, &mut text);
    }
    text.push(b'"');
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"0\""))
}

fn hexadecimal(number: u64, into: &mut Vec<u8>) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    into.extend((0..digits).rev().map(|at| b"0123456789abcdef"[(number >> (at * 4)) as usize & 15]));
}

/// For a GET or HEAD of something that exists.
pub(super) fn judge(method: &Method, headers: &HeaderMap, validators: &Validators) -> Verdict {
    // 1. and 2.
    if headers.contains_key(header::IF_MATCH) {
        if !any_matches(headers, header::IF_MATCH, &validators.etag, strongly) {
            return Verdict::PreconditionFailed;
        }
    } else if let (Some(since), Some(modified)) = (date(headers, header::IF_UNMODIFIED_SINCE), validators.modified)
        && modified > since
    {
        return Verdict::PreconditionFailed;
    }
    // 3. and 4.
    if headers.contains_key(header::IF_NONE_MATCH) {
        if any_matches(headers, header::IF_NONE_MATCH, &validators.etag, weakly) {
            return Verdict::NotModified;
        }
    } else if let (Some(since), Some(modified)) = (date(headers, header::IF_MODIFIED_SINCE), validators.modified)
        && modified <= since
    {
        return Verdict::NotModified;
    }
    // 5.
    if *method == Method::GET && headers.contains_key(header::RANGE) && !range_holds(headers, validators) {
        return Verdict::ProceedWhole;
    }
    Verdict::Proceed
}

fn range_holds(headers: &HeaderMap, validators: &Validators) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else {
        return true;
    };
    let value = value.as_bytes().trim_ascii();
    if value.ends_with(b"\"") {
        return strongly(value, validators.etag.as_bytes());
    }
    // Exactly the date that we sent, not a later one.
    date(headers, header::IF_RANGE).is_some_and(|at| validators.modified_strong && validators.modified == Some(at))
}

/// One date. Two fields of it are nonsense and ignored, as a date that does not parse is.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let at = httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()?;
    at.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn any_matches(headers: &HeaderMap, name: HeaderName, etag: &HeaderValue, same: fn(&[u8], &[u8]) -> bool) -> bool {
    headers.get_all(name).iter().any(|value| {
        let value = value.as_bytes().trim_ascii();
        value == b"*" || tags(value).any(|tag| same(tag, etag.as_bytes()))
    })
}

/// The entity-tags of a list. A comma may stand inside a tag, so this splits at quotes; it ends at the first nonsense.
fn tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let from = rest.iter().position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?;
        rest = &rest[from..];
        let open = if rest.starts_with(b"W/\"") {
            3
        } else if rest.starts_with(b"\"") {
            1
        } else {
            return None;
        };
        let close = open + rest[open..].iter().position(|&byte| byte == b'"')? + 1;
        let (tag, after) = rest.split_at(close);
        rest = after;
        Some(tag)
    })
}

fn strongly(tag: &[u8], etag: &[u8]) -> bool {
    tag == etag
}

fn weakly(tag: &[u8], etag: &[u8]) -> bool {
    tag.strip_prefix(b"W/").unwrap_or(tag) == etag
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"5-0-a-7\"";
    const AT: u64 = 784_111_777;
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn validators() -> Validators {
        Validators {
            etag: HeaderValue::from_static(ETAG),
            modified: Some(AT),
            last_modified: Some(HeaderValue::from_static(SAME)),
            modified_strong: true,
        }
    }

    fn judged(method: Method, validators: &Validators, lines: &[(&str, &str)]) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::try_from(*name).expect("the table holds header names");
            headers.append(name, HeaderValue::from_str(value).expect("the table holds header values"));
        }
        judge(&method, &headers, validators)
    }

    #[test]
    fn conditions_are_judged_in_the_order_of_the_rfc() {
        use Verdict::{NotModified, PreconditionFailed, Proceed};
        let check = |lines: &[(&str, &str)], expected: Verdict| {
            assert_eq!(judged(Method::GET, &validators(), lines), expected, "{lines:?}");
            assert_eq!(judged(Method::HEAD, &validators(), lines), expected, "HEAD {lines:?}");
        };
        check(&[], Proceed);
        // If-Match compares strongly.
        check(&[("if-match", ETAG)], Proceed);
        check(&[("if-match", "*")], Proceed);
        check(&[("if-match", "\"x\", \"5-0-a-7\"")], Proceed);
        check(&[("if-match", "\"x\""), ("if-match", ETAG)], Proceed);
        check(&[("if-match", "\"x\"")], PreconditionFailed);
        check(&[("if-match", "W/\"5-0-a-7\"")], PreconditionFailed);
        check(&[("if-match", "nonsense")], PreconditionFailed);
        // It hides If-Unmodified-Since, and a pass goes on to step 3.
        check(&[("if-match", ETAG), ("if-unmodified-since", EARLIER)], Proceed);
        check(&[("if-match", ETAG), ("if-none-match", ETAG)], NotModified);
        check(&[("if-match", "\"x\""), ("if-none-match", ETAG)], PreconditionFailed);
        check(&[("if-unmodified-since", SAME)], Proceed);
        check(&[("if-unmodified-since", LATER)], Proceed);
        check(&[("if-unmodified-since", EARLIER)], PreconditionFailed);
        check(&[("if-unmodified-since", "yesterday")], Proceed);
        check(&[("if-unmodified-since", EARLIER), ("if-unmodified-since", LATER)], Proceed);
        check(&[("if-unmodified-since", EARLIER), ("if-none-match", ETAG)], PreconditionFailed);
        check(&[("if-unmodified-since", SAME), ("if-none-match", ETAG)], NotModified);
        // If-None-Match compares weakly.
        check(&[("if-none-match", ETAG)], NotModified);
        check(&[("if-none-match", "W/\"5-0-a-7\"")], NotModified);
        check(&[("if-none-match", "*")], NotModified);
        check(&[("if-none-match", "\"a,b\" , W/\"5-0-a-7\"")], NotModified);
        check(&[("if-none-match", "\"x\"")], Proceed);
        check(&[("if-none-match", "5-0-a-7")], Proceed);
        check(&[("if-none-match", "\"x, \"5-0-a-7\"")], Proceed);
        check(&[("if-none-match", "\"x,\"")], Proceed);
        // It hides If-Modified-Since.
        check(&[("if-none-match", "\"x\""), ("if-modified-since", LATER)], Proceed);
        check(&[("if-none-match", ETAG), ("if-modified-since", EARLIER)], NotModified);
        check(&[("if-modified-since", SAME)], NotModified);
        check(&[("if-modified-since", LATER)], NotModified);
        check(&[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], NotModified);
        check(&[("if-modified-since", "Sun Nov  6 08:49:37 1994")], NotModified);
        check(&[("if-modified-since", EARLIER)], Proceed);
        check(&[("if-modified-since", "yesterday")], Proceed);
        // If-Range without Range says nothing.
        check(&[("if-range", "\"x\"")], Proceed);
    }

    #[test]
    fn a_range_is_heard_only_for_the_same_state() {
        use Verdict::{NotModified, Proceed, ProceedWhole};
        let check = |value: &str, expected: Verdict| {
            let lines = [("range", "bytes=0-1"), ("if-range", value)];
            assert_eq!(judged(Method::GET, &validators(), &lines), expected, "{value}");
        };
        check(ETAG, Proceed);
        check("\"x\"", ProceedWhole);
        check("W/\"5-0-a-7\"", ProceedWhole);
        check(SAME, Proceed);
        check(EARLIER, ProceedWhole);
        check(LATER, ProceedWhole);
        check("nonsense", ProceedWhole);
        let fresh = Validators { modified_strong: false, ..validators() };
        let dated = [("range", "bytes=0-1"), ("if-range", SAME)];
        assert_eq!(judged(Method::GET, &fresh, &dated), ProceedWhole);
        assert_eq!(judged(Method::HEAD, &fresh, &dated), Proceed, "HEAD has no ranges");
        let both = [("range", "bytes=0-1"), ("if-none-match", ETAG), ("if-range", "\"x\"")];
        assert_eq!(judged(Method::GET, &validators(), &both), NotModified);
    }

    #[test]
    fn numbers_are_written_in_hexadecimal() {
        for number in [0, 1, 15, 16, 255, 4096, u64::MAX] {
            let mut text = Vec::new();
            hexadecimal(number, &mut text);
            assert_eq!(text, format!("{number:x}").into_bytes());
        }
    }
}
