//! One line of a head: the request line, or a field. Pure. Everything here is stricter than what parsers usually take,
//! because two parsers that are lenient in different ways are what a smuggled request lives on.

use http::{Method, Uri};
use memchr::{memchr, memrchr};

use super::Flaw;

/// Longer names are nobody's method.
pub(super) const METHOD_MAX: usize = 64;
/// The two spaces and the version.
pub(super) const LINE_REST: usize = " ".len() + " HTTP/1.1".len();
/// Longer names are nobody's header either, and the parser behind us has a limit of its own.
pub const NAME_MAX: usize = 1024;

/// What of a request line matters to the lines that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// HTTP/1.0, or older by its own word.
    pub old: bool,
    /// The minor version is above 1: to be read as 1 (RFC 9110, 2.5), so this byte has to change.
    pub newer_at: Option<usize>,
}

pub(super) fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
    TOKEN[usize::from(byte)]
}

/// RFC 3986 has fewer; these too are sent by clients as they are, and mean nothing to anybody.
fn is_target(byte: u8) -> bool {
    const TARGET: [bool; 256] =
        table(b"!$%&'()*+,-./:;=?@[\\]^_{|}~\"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
    TARGET[usize::from(byte)]
}

const fn table(bytes: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut i = 0;
    while i < bytes.len() {
        table[bytes[i] as usize] = true;
        i += 1;
    }
    table
}

pub(super) fn request_line(line: &[u8], target_max: usize) -> Result<Opening, Flaw> {
    let malformed = Flaw::Syntax("The request line is malformed.");
    let first = memchr(b' ', line).ok_or(malformed)?;
    let last = memrchr(b' ', line).filter(|it| *it > first).ok_or(malformed)?;
    let (method, target) = (&line[..first], &line[first + 1..last]);
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(Flaw::Syntax("The method is not a token."));
    }
    let (old, newer) = version(&line[last + 1..])?;
    if method.len() > METHOD_MAX {
        return Err(Flaw::Method);
    }
    if target.len() > target_max {
        return Err(Flaw::Target);
    }
    if !is_request_target(method, target) {
        return Err(Flaw::Syntax("The request target is malformed."));
    }
    if method == b"CONNECT" {
        return Err(Flaw::Method);
    }
    let newer_at = newer.then_some(line.len() - 1);
    Ok(Opening { old, newer_at })
}

/// Whether it is HTTP/1.0, and whether it is newer than HTTP/1.1.
fn version(version: &[u8]) -> Result<(bool, bool), Flaw> {
    match version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9'] => Ok((*minor == b'0', *minor > b'1')),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Flaw::Version),
        _ => Err(Flaw::Syntax("The request line has no HTTP version.")),
    }
}

/// A target with which any method but CONNECT asks this server (RFC 9112, 3.2.1).
pub fn is_origin_form(target: &[u8]) -> bool {
    target.starts_with(b"/") && is_request_target(b"GET", target)
}

/// RFC 9112, 3.2: each form with the methods that it goes with.
fn is_request_target(method: &[u8], target: &[u8]) -> bool {
    // The one byte that our URI type takes in a path and not in a query.
    let quoted = memrchr(b'"', target).is_some_and(|it| memchr(b'?', target).is_some_and(|query| query < it));
    if quoted || !target.iter().copied().all(is_target) {
        return false;
    }
    match target {
        _ if method == b"CONNECT" => is_authority(target),
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => is_absolute(target),
    }
}

fn is_absolute(target: &[u8]) -> bool {
    let scheme = |name: &[u8]| target.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name));
    let known = scheme(b"http://") || scheme(b"https://");
    let uri = known.then(|| Uri::try_from(target).ok()).flatten();
    // User names in a target are a way to show one host and ask another.
    uri.and_then(|it| it.into_parts().authority).is_some_and(|it| !it.as_str().contains('@') && !it.host().is_empty())
}

fn is_authority(target: &[u8]) -> bool {
    http::uri::Authority::try_from(target).is_ok_and(|it| it.port_u16().is_some() && !it.as_str().contains('@'))
}

/// As far as they can be made out, for the log of a request that is refused.
pub(super) fn guess(line: &[u8]) -> (Option<Method>, Option<Uri>) {
    let mut words = line.split(|it| *it == b' ');
    let method = words.next().filter(|it| it.len() <= METHOD_MAX).and_then(|it| Method::from_bytes(it).ok());
    let target = words.next().filter(|it| it.starts_with(b"/") || *it == b"*");
    (method, target.and_then(|it| Uri::try_from(it).ok()))
}

/// Name and value of a field line, the value without the white space around it.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Flaw> {
    if matches!(line[0], b' ' | b'\t') {
        return Err(Flaw::Syntax("A header line is folded."));
    }
    let colon = memchr(b':', line).ok_or(Flaw::Syntax("A header line has no colon."))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Flaw::Syntax("A header name is not a token."));
    }
    if name.len() > NAME_MAX {
        return Err(Flaw::Header);
    }
    if !is_field_value(value) {
        return Err(Flaw::Syntax("A header value has control characters."));
    }
    Ok((name, trimmed(value)))
}

/// No control characters but tabs (RFC 9110, 5.5). Without a branch per byte, so that it runs many bytes at a time.
pub fn is_field_value(value: &[u8]) -> bool {
    value.iter().fold(true, |fine, it| fine & ((*it >= 0x20 && *it != 0x7f) || *it == b'\t'))
}

fn trimmed(value: &[u8]) -> &[u8] {
    let is_space = |it: &u8| matches!(it, b' ' | b'\t');
    let start = value.iter().position(|it| !is_space(it)).unwrap_or(value.len());
    let end = value.iter().rposition(|it| !is_space(it)).map_or(start, |it| it + 1);
    &value[start..end]
}

/// The value of a Content-Length: digits and nothing else, no sign, no list, no white space within.
pub fn content_length(value: &[u8]) -> Option<u64> {
    let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let number =
        digits.then(|| value.iter().try_fold(0_u64, |sum, it| sum.checked_mul(10)?.checked_add(u64::from(it - b'0'))));
    number.flatten().filter(|it| i64::try_from(*it).is_ok())
}

/// The same, written in a way that nobody reads differently: to some a leading zero makes it octal.
pub fn canonical_length(value: &[u8]) -> Option<u64> {
    let is_short = value == b"0" || !value.starts_with(b"0");
    content_length(value).filter(|_| is_short)
}

/// Chunked it must be, at the end and once (RFC 9112, 6.3); other codings before it are known to exist, but not to us.
pub(super) fn transfer_encoding(value: &[u8]) -> Result<(), Flaw> {
    let (mut chunked, mut others, mut last) = (0, 0, false);
    for coding in value.split(|it| *it == b',').map(trimmed) {
        if coding.is_empty() || !coding.iter().copied().all(is_token) {
            return Err(Flaw::Syntax("Transfer-Encoding is malformed."));
        }
        last = coding.eq_ignore_ascii_case(b"chunked");
        if last { chunked += 1 } else { others += 1 }
    }
    match (chunked, others) {
        (1, 0) => Ok(()),
        (2.., _) => Err(Flaw::Syntax("Transfer-Encoding names chunked twice.")),
        (1, _) if !last => Err(Flaw::Syntax("The last transfer coding is not chunked.")),
        _ => Err(Flaw::Coding),
    }
}
