//! Does what `compression` decided, once an answer is otherwise complete.

use http::{Method, Response, header};
use http_body::Body as _;

use super::{Asked, Verdict, decide};
use crate::{
    encoding::{Budget, Coding, Encoded, Encoder, Flush, INLINE_BYTES, Purpose, Rules, coded, encode, varies, weaken},
    exchange::{Body, LocalBody},
};

/// `budget` is the worker's: with nothing left in it the answer goes as it is.
pub fn compress(asked: &Asked<'_>, method: &Method, response: Response<Body>, budget: &Budget) -> Response<Body> {
    let (mut head, mut body) = response.into_parts();
    let said = head.headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    let length = said.or_else(|| body.size_hint().exact().filter(|_| method != Method::HEAD));
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
            (body, encoded) = if method == Method::HEAD { (body, true) } else { job.encoded(body) };
            if encoded {
                coded(&mut head.headers, coding);
            } else {
                varies(&mut head.headers);
            }
        }
    }
    Response::from_parts(head, body)
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
