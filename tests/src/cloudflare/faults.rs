//! What goes wrong on purpose, and when: the first rule that fits a request is carried out.

use std::time::Duration;

use serde_json::Value;

use super::authority::Mutation;

/// How a 429 says when to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    Seconds(u64),
    HttpDate(u64),
    Text(String),
    Absent,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    Answer {
        status: u16,
        content_type: &'static str,
        body: String,
    },
    /// An error in the envelope.
    Refuse {
        status: u16,
        code: u32,
        message: String,
    },
    RateLimit(RetryAfter),
    /// Before the answer.
    Delay(Duration),
    /// Bytes a second.
    Drip(usize),
    /// Never answers; nothing was done.
    Hang,
    /// Never answers, although it was done.
    HangAfter,
    /// TCP RST; nothing was done.
    Reset,
    /// TCP RST, although it was done.
    ResetAfter,
    /// Only the first bytes of the body, then the connection ends.
    Truncate(usize),
    /// `Content-Encoding: gzip`, which nobody asked for.
    Gzip,
    /// A body of so many bytes.
    Big(usize),
    Redirect(String),
    /// The certificate is not what was asked for.
    Mutate(Mutation),
    /// The envelope is not what is usual.
    NullResult,
    MessagesAsStrings,
    OmitMessages,
    ExtraFields,
    ByteOrderMark,
}

impl Then {
    /// Whether the request is carried out although the answer is spoiled.
    pub(super) fn is_after(&self) -> bool {
        !matches!(
            self,
            Self::Answer { .. }
                | Self::Refuse { .. }
                | Self::RateLimit(_)
                | Self::Hang
                | Self::Reset
                | Self::Big(_)
                | Self::Redirect(_)
        )
    }
}

#[derive(Clone, Debug)]
pub struct Rule {
    method: String,
    path: String,
    times: Option<u32>,
    pub(super) then: Then,
}

impl Rule {
    /// For requests of this method whose path begins so; again and again.
    pub fn new(method: &str, path: &str, then: Then) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), times: None, then }
    }

    /// For the creation of certificates.
    pub fn on_create(then: Then) -> Self {
        Self::new("POST", "/certificates", then)
    }

    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Whether it fits, which uses it up by one.
    pub(super) fn takes(&mut self, method: &str, path: &str) -> bool {
        if (self.method != method && self.method != "*") || !path.starts_with(&self.path) || self.times == Some(0) {
            return false;
        }
        self.times = self.times.map(|it| it - 1);
        true
    }

    /// From the control interface: `{"match": {"method", "path"}, "times", "then": {WORD: ARGUMENT}}`.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let then = value["then"].as_object().and_then(|it| it.iter().next()).ok_or("`then` is missing")?;
        let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
        let number = |it: &Value| usize::try_from(it.as_u64().unwrap_or_default()).unwrap_or_default();
        let then = match (then.0.as_str(), then.1) {
            ("cf_error", it) => Then::Refuse {
                status: u16::try_from(number(&it["http"])).map_err(|it| it.to_string())?,
                code: u32::try_from(number(&it["code"])).map_err(|it| it.to_string())?,
                message: text(&it["message"]),
            },
            ("rate_limit", it) => Then::RateLimit(match &it["retry_after"] {
                Value::Number(_) => RetryAfter::Seconds(number(&it["retry_after"]) as u64),
                Value::String(it) => RetryAfter::Text(it.clone()),
                _ => RetryAfter::Absent,
            }),
            ("delay_ms", it) => Then::Delay(Duration::from_millis(number(it) as u64)),
            ("drip", it) => Then::Drip(number(it)),
            ("hang", _) => Then::Hang,
            ("hang_after", _) => Then::HangAfter,
            ("reset", _) => Then::Reset,
            ("reset_after", _) => Then::ResetAfter,
            ("truncate", it) => Then::Truncate(number(it)),
            ("gzip", _) => Then::Gzip,
            ("big", it) => Then::Big(number(it)),
            ("redirect", it) => Then::Redirect(text(it)),
            ("mutate", it) => Then::Mutate(Mutation::read(it)?),
            (other, _) => return Err(format!("`{other}` is no fault")),
        };
        let method = value["match"]["method"].as_str().unwrap_or("*").to_owned();
        let path = value["match"]["path"].as_str().unwrap_or("/").to_owned();
        let times = value["times"].as_u64().map(|it| u32::try_from(it).unwrap_or(u32::MAX));
        Ok(Self { method, path, times, then })
    }
}
