//! The header fields of an answer that was encoded, or that might have been.

use http::{HeaderMap, HeaderValue, header};

use super::Coding;

const ACCEPT_ENCODING: HeaderValue = HeaderValue::from_static("accept-encoding");

/// The answer's bytes are now those of `coding`: what spoke of the old ones goes, and its tag becomes weak, since it names
/// the same content in other bytes.
pub fn coded(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(header::CONTENT_ENCODING, coding.value());
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    weaken(headers);
    varies(headers);
}

/// Another client may get the same in another coding, and caches between us must know.
pub fn varies(headers: &mut HeaderMap) {
    let named = |it: &HeaderValue| {
        it.as_bytes()
            .split(|it| *it == b',')
            .map(<[u8]>::trim_ascii)
            .any(|it| it == b"*" || it.eq_ignore_ascii_case(ACCEPT_ENCODING.as_bytes()))
    };
    if !headers.get_all(header::VARY).iter().any(named) {
        headers.append(header::VARY, ACCEPT_ENCODING);
    }
}

/// `Cache-Control: no-transform`: the content has to arrive as it is.
pub fn forbids_transformation(cache_control: &HeaderValue) -> bool {
    let mut directives = cache_control.as_bytes().split(|it| *it == b',').map(<[u8]>::trim_ascii);
    directives.any(|it| it.eq_ignore_ascii_case(b"no-transform"))
}

/// A tag that cannot be read is taken away: it might be believed to be strong.
pub fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG) else { return };
    if tag.as_bytes().starts_with(b"W/") {
        return;
    }
    match HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        Ok(weak) if tag.as_bytes().starts_with(b"\"") => headers.insert(header::ETAG, weak),
        _ => headers.remove(header::ETAG),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn an_encoded_answer_says_nothing_of_its_old_bytes() {
        let mut map =
            headers(&[("etag", "\"x\""), ("content-length", "9"), ("accept-ranges", "bytes"), ("x-other", "1")]);
        coded(&mut map, Coding::Brotli);
        let expected =
            headers(&[("etag", "W/\"x\""), ("content-encoding", "br"), ("vary", "accept-encoding"), ("x-other", "1")]);
        assert_eq!(map, expected);
    }

    #[test]
    fn vary_is_said_once() {
        for (before, expected) in [
            (&[][..], 1),
            (&[("vary", "accept")][..], 2),
            (&[("vary", "Accept-Encoding")][..], 1),
            (&[("vary", "origin, ACCEPT-ENCODING")][..], 1),
            (&[("vary", "*")][..], 1),
        ] {
            let mut map = headers(before);
            varies(&mut map);
            varies(&mut map);
            assert_eq!(map.get_all(header::VARY).iter().count(), expected, "{before:?}");
        }
    }

    #[test]
    fn tags_become_weak() {
        for (before, after) in [("\"x\"", Some("W/\"x\"")), ("W/\"x\"", Some("W/\"x\"")), ("x", None)] {
            let mut map = headers(&[("etag", before)]);
            weaken(&mut map);
            assert_eq!(map.get(header::ETAG).and_then(|it| it.to_str().ok()), after, "{before}");
        }
    }
}
