//! Whether an answer is encoded. Pure: what was asked and the head of the answer in, a verdict out.
//!
//! What a newcomer would get wrong: the answer that goes out as it is needs `Vary` too, whenever another client would have
//! got it encoded.

use http::{HeaderMap, HeaderName, Method, StatusCode, header, response};

use crate::encoding::{Accepted, Coding, Rules, forbids_transformation};

/// What the request says that matters here, kept when the request has moved on.
#[derive(Debug)]
pub struct Asked<'a> {
    pub(super) rules: &'a Rules,
    accepted: Accepted,
    /// Bytes of a range are counted in the content as it is; and a client may ask us not to transform anything.
    plain: bool,
    /// The client holds what we sent it encoded: its tag is weak.
    holds_weak: bool,
    pub(super) head: bool,
    tunnel: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours to touch.
    Leave,
    /// As it is; another client may get it encoded.
    Plain,
    Encode(Coding),
    /// A 304, told the same as the answer that it stands for; its tag as the client knows it.
    Same,
    SameWeak,
}

/// They are about the bytes that are sent, which would become others.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-md5"),
];

impl<'a> Asked<'a> {
    pub fn of(rules: &'a Rules, method: &Method, headers: &HeaderMap) -> Self {
        let weak = |it: &http::HeaderValue| it.as_bytes().windows(3).any(|it| it == b"W/\"");
        Self {
            rules,
            accepted: Accepted::of(headers),
            plain: headers.contains_key(header::RANGE)
                || headers.get_all(header::CACHE_CONTROL).iter().any(forbids_transformation),
            holds_weak: headers.get_all(header::IF_NONE_MATCH).iter().any(weak),
            head: method == Method::HEAD,
            tunnel: method == Method::CONNECT,
        }
    }
}

/// `length` of the body, when it is known.
pub fn decide(asked: &Asked<'_>, head: &response::Parts, length: Option<u64>) -> Verdict {
    let headers = &head.headers;
    if asked.tunnel || is_bodyless(head.status) || headers.contains_key(header::CONTENT_ENCODING) {
        return Verdict::Leave;
    }
    if head.status == StatusCode::NOT_MODIFIED {
        return if asked.holds_weak { Verdict::SameWeak } else { Verdict::Same };
    }
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Verdict::Leave };
    if !asked.rules.covers(kind.as_bytes())
        || kind.as_bytes().starts_with(b"application/grpc")
        || headers.get_all(header::CACHE_CONTROL).iter().any(forbids_transformation)
        || DIGESTS.iter().any(|it| headers.contains_key(it))
    {
        return Verdict::Leave;
    }
    // The length of a part says nothing of the whole.
    if head.status == StatusCode::PARTIAL_CONTENT || headers.contains_key(header::CONTENT_RANGE) {
        return Verdict::Plain;
    }
    if length.is_some_and(|it| it < asked.rules.bytes_min()) {
        return Verdict::Leave;
    }
    if asked.plain {
        return Verdict::Plain;
    }
    asked.accepted.best(asked.rules.codings()).map_or(Verdict::Plain, Verdict::Encode)
}

/// 101 is a tunnel; the others have no body by definition.
fn is_bodyless(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::RESET_CONTENT
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response};

    use super::*;

    fn rules() -> std::sync::Arc<Rules> {
        Rules::new(&config::Compression {
            enabled: true,
            algorithms: vec!["zstd".into(), "br".into(), "gzip".into()],
            level: None,
            min_size: config::ByteSize::kib(1),
            types: vec!["text/*".into(), "application/json".into(), "application/grpc".into()],
        })
        .expect("rules")
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    type Fields<'a> = &'a [(&'static str, &'static str)];

    fn verdict(method: &Method, asked: Fields<'_>, status: u16, answer: Fields<'_>, length: Option<u64>) -> Verdict {
        let rules = rules();
        let asked = Asked::of(&rules, method, &map(asked));
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        *response.headers_mut() = map(answer);
        decide(&asked, &response.into_parts().0, length)
    }

    const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");
    const GZIP: (&str, &str) = ("accept-encoding", "gzip");
    const BIG: Option<u64> = Some(5000);
    const ENCODED: Verdict = Verdict::Encode(Coding::Gzip);

    #[test]
    fn answers_are_judged() {
        let check = |asked: Fields<'_>, status, answer: Fields<'_>, length, expected| {
            assert_eq!(
                verdict(&Method::GET, asked, status, answer, length),
                expected,
                "{asked:?} {status} {answer:?} {length:?}"
            );
        };
        check(&[GZIP], 200, &[HTML], BIG, ENCODED);
        check(&[GZIP], 200, &[HTML], None, ENCODED);
        check(&[GZIP], 404, &[HTML], BIG, ENCODED);
        check(&[GZIP], 500, &[HTML], BIG, ENCODED);
        check(&[GZIP], 200, &[HTML], Some(1024), ENCODED);
        check(&[GZIP], 200, &[HTML], Some(1023), Verdict::Leave);
        check(&[GZIP], 200, &[HTML], Some(0), Verdict::Leave);
        check(&[], 200, &[HTML], BIG, Verdict::Plain);
        check(&[("accept-encoding", "gzip;q=0")], 200, &[HTML], BIG, Verdict::Plain);
        check(&[GZIP], 200, &[("content-type", "image/png")], BIG, Verdict::Leave);
        check(&[GZIP], 200, &[], BIG, Verdict::Leave);
        check(&[GZIP], 200, &[("content-type", "application/grpc")], None, Verdict::Leave);
        check(&[GZIP], 200, &[HTML, ("content-encoding", "br")], BIG, Verdict::Leave);
        check(&[GZIP], 200, &[HTML, ("content-encoding", "identity")], BIG, Verdict::Leave);
        check(&[GZIP], 200, &[HTML, ("cache-control", "max-age=1, No-Transform")], BIG, Verdict::Leave);
        check(&[GZIP], 200, &[HTML, ("cache-control", "max-age=1")], BIG, ENCODED);
        check(&[GZIP], 200, &[HTML, ("content-digest", "sha-256=:x:")], BIG, Verdict::Leave);
        check(&[GZIP], 206, &[HTML, ("content-range", "bytes 0-4999/9000")], BIG, Verdict::Plain);
        check(&[GZIP], 206, &[HTML], Some(10), Verdict::Plain);
        check(&[GZIP, ("range", "bytes=0-")], 200, &[HTML], BIG, Verdict::Plain);
        check(&[GZIP, ("cache-control", "no-transform")], 200, &[HTML], BIG, Verdict::Plain);
        check(&[GZIP], 204, &[HTML], None, Verdict::Leave);
        check(&[GZIP], 205, &[HTML], None, Verdict::Leave);
        check(&[GZIP], 101, &[HTML], None, Verdict::Leave);
        check(&[GZIP], 200, &[("content-type", "text/event-stream")], None, ENCODED);
    }

    #[test]
    fn methods_make_no_difference_but_one() {
        for (method, expected) in [
            (Method::GET, ENCODED),
            (Method::HEAD, ENCODED),
            (Method::POST, ENCODED),
            (Method::OPTIONS, ENCODED),
            (Method::CONNECT, Verdict::Leave),
        ] {
            assert_eq!(verdict(&method, &[GZIP], 200, &[HTML], BIG), expected, "{method}");
        }
    }

    #[test]
    fn a_304_is_told_what_its_200_was() {
        let check = |held: &'static str, expected| {
            let asked = [GZIP, ("if-none-match", held)];
            assert_eq!(verdict(&Method::GET, &asked, 304, &[("etag", "\"x\"")], None), expected, "{held}");
        };
        check("\"x\"", Verdict::Same);
        check("W/\"x\"", Verdict::SameWeak);
        check("\"y\", W/\"x\"", Verdict::SameWeak);
        check("*", Verdict::Same);
    }
}
