//! Does what `compression` decided, once an answer is otherwise complete.

use http::{Response, header};
use http_body::Body as _;

use super::{Asked, Verdict, decide};
use crate::{
    encoding::{Budget, Coding, Encoded, Encoder, Flush, INLINE_BYTES, Purpose, Rules, coded, encode, varies, weaken},
    exchange::{Body, LocalBody},
};

/// `budget` is the worker's: with nothing left in it the answer goes as it is.
pub fn compress(asked: &Asked<'_>, response: Response<Body>, budget: &Budget) -> Response<Body> {
    let (mut head, mut body) = response.into_parts();
    let said = head.headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    let length = said.or_else(|| body.size_hint().exact().filter(|it| !asked.head || *it > 0));
    match decide(asked, &head, length) {
        Verdict::Leave => {}
        Verdict::Plain | Verdict::Same => varies(&mut head.headers),
        Verdict::SameWeak => {
            weaken(&mut head.headers);
            varies(&mut head.headers);
        }
        Verdict::Encode(coding) => {
            let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], |it| it.as_bytes());
            let events = kind.get(..17).is_some_and(|it| it.eq_ignore_ascii_case(b"text/event-stream"));
            let purpose = if events { Purpose::Events } else { Purpose::Body };
            let job = Job { rules: asked.rules, coding, purpose, length, budget };
            let encoded;
            (body, encoded) = if asked.head { (unsent(body), true) } else { job.encoded(body) };
            if encoded {
                coded(&mut head.headers, coding);
            } else {
                varies(&mut head.headers);
            }
        }
    }
    Response::from_parts(head, body)
}

/// The answer to a HEAD: what is not sent must not be measured either, for it would be encoded.
fn unsent(body: Body) -> Body {
    match body {
        Body::Full(_) => Body::Empty,
        // An upstream's, which says nothing of a length, and whose end gives its connection back.
        Body::Empty | Body::Stream(_) => body,
    }
}

struct Job<'a> {
    rules: &'a Rules,
    coding: Coding,
    purpose: Purpose,
    length: Option<u64>,
    budget: &'a Budget,
}

impl Job<'_> {
    /// The body, and whether it is encoded.
    fn encoded(&self, body: Body) -> (Body, bool) {
        let (coding, level) = (self.coding, self.rules.level(self.coding));
        match body {
            Body::Empty => (body, true),
            Body::Full(bytes) if bytes.len() as u64 <= INLINE_BYTES => match encode(coding, level, &bytes) {
                Ok(out) => (Body::from(bytes::Bytes::from(out)), true),
                Err(error) => {
                    tracing::warn!(%error, coding = coding.token(), "an answer could not be encoded");
                    (Body::Full(bytes), false)
                }
            },
            Body::Stream(body) if self.purpose == Purpose::Body && self.length.is_some_and(|it| it <= INLINE_BYTES) => {
                (Body::stream(Encoded::small(body, coding, level)), true)
            }
            Body::Full(_) => {
                let whole: LocalBody = Box::pin(body);
                self.streamed(whole)
            }
            Body::Stream(body) => self.streamed(body),
        }
    }

    fn streamed(&self, body: LocalBody) -> (Body, bool) {
        let level = self.rules.level(self.coding);
        let Some(permit) = self.budget.take(Encoder::cost(self.coding, level, self.purpose)) else {
            return (Body::Stream(body), false);
        };
        match Encoder::new(self.coding, level, self.purpose, self.length) {
            Ok(encoder) => {
                let flush = if self.length.is_none() || self.purpose == Purpose::Events {
                    Flush::AtPauses
                } else {
                    Flush::WhenFull
                };
                (Body::stream(Encoded::new(body, encoder, flush, permit)), true)
            }
            Err(error) => {
                tracing::warn!(%error, coding = self.coding.token(), "an encoder could not be made");
                (Body::Stream(body), false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Method};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// A body whose length nobody knows.
    fn stream(bytes: usize) -> Body {
        let frames = futures_util::stream::iter([Ok(http_body::Frame::data(Bytes::from(vec![b'x'; bytes])))]);
        Body::stream(StreamBody::new(frames))
    }

    fn compressed(
        accept: &'static str,
        method: &Method,
        length: Option<u64>,
        body: Body,
        budget: &Budget,
    ) -> Response<Body> {
        let rules = Rules::new(&config::Compression {
            enabled: true,
            algorithms: vec!["zstd".into(), "br".into(), "gzip".into()],
            level: None,
            min_size: config::ByteSize::kib(1),
            types: vec!["text/*".into()],
        })
        .unwrap();
        let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(accept))]);
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response.headers_mut().insert(header::ETAG, HeaderValue::from_static("\"x\""));
        if let Some(length) = length {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        compress(&Asked::of(&rules, method, &headers), response, budget)
    }

    fn coding(response: &Response<Body>) -> &str {
        response.headers().get(header::CONTENT_ENCODING).map_or("", |it| it.to_str().unwrap())
    }

    #[tokio::test]
    async fn with_no_memory_left_the_answer_goes_as_it_is() {
        let budget = Budget::of(Encoder::cost(Coding::Gzip, 6, Purpose::Body));
        let first = compressed("gzip", &Method::GET, None, stream(5000), &budget);
        assert_eq!(coding(&first), "gzip");
        let second = compressed("gzip", &Method::GET, None, stream(5000), &budget);
        assert_eq!(
            (coding(&second), &second.headers()["vary"], &second.headers()["etag"]),
            ("", &"accept-encoding".parse().unwrap(), &"\"x\"".parse().unwrap())
        );
        assert_eq!(second.into_body().collect().await.unwrap().to_bytes().len(), 5000);
        drop(first);
        let third = compressed("gzip", &Method::GET, None, stream(5000), &budget);
        assert_eq!(coding(&third), "gzip");
    }

    #[tokio::test]
    async fn small_bodies_need_no_encoder_of_their_own() {
        let none = Budget::of(0);
        for body in [Body::from(Bytes::from(vec![b'x'; 5000])), stream(5000)] {
            let response = compressed("br", &Method::GET, Some(5000), body, &none);
            assert_eq!(coding(&response), "br");
            assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
            assert!(response.into_body().collect().await.unwrap().to_bytes().len() < 100);
        }
        let large = compressed("br", &Method::GET, None, Body::from(Bytes::from(vec![b'x'; 100_000])), &none);
        assert_eq!(coding(&large), "");
    }

    #[test]
    fn a_head_needs_nothing_and_says_the_same() {
        let response = compressed("zstd", &Method::HEAD, Some(5000), Body::Empty, &Budget::of(0));
        assert_eq!((coding(&response), &response.headers()["etag"]), ("zstd", &"W/\"x\"".parse().unwrap()));
        let response = compressed("zstd", &Method::HEAD, Some(50), Body::Empty, &Budget::of(0));
        assert_eq!((coding(&response), &response.headers()["content-length"]), ("", &"50".parse().unwrap()));
        for (length, expected) in [(50, ""), (5000, "zstd")] {
            let body = Body::from(Bytes::from(vec![b'x'; length]));
            let response = compressed("zstd", &Method::HEAD, None, body, &Budget::of(0));
            let sent = if expected.is_empty() { length as u64 } else { 0 };
            assert_eq!((coding(&response), response.body().size_hint().exact()), (expected, Some(sent)));
        }
    }
}
