//! How long a request waits for the head of its answer. An ordinary one waits `request_timeout` from when its body last
//! moved; a gRPC call may be silent for as long as a stream, or until the deadline that it names, which is the client's
//! to keep: miwid never ends a call before it.

use std::time::Duration;

use http::{HeaderMap, request};
use tokio::time::Instant;

use super::Forwarder;
use crate::exchange::{Meter, is_call};

/// So long after a call's own deadline its client has given up, or both ends are stuck.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// From when the request's body last moved.
    Quiet(Duration),
    /// The same for a call without a deadline.
    Stream(Duration),
    Until(Instant),
}

impl Patience {
    pub(super) fn of(head: &request::Parts, forwarder: &Forwarder) -> Self {
        if !is_call(head.version, &head.headers) {
            return Self::Quiet(forwarder.request_timeout);
        }
        let deadline = timeout(&head.headers).and_then(|it| Instant::now().checked_add(it + GRACE));
        deadline.map_or(Self::Stream(forwarder.stream_idle_timeout), Self::Until)
    }

    /// For an exchange whose request was whole at that moment.
    pub(super) fn since(self, begun: std::time::Instant) -> Self {
        match self {
            Self::Quiet(timeout) | Self::Stream(timeout) => Self::Until(Instant::from_std(begun) + timeout),
            Self::Until(_) => self,
        }
    }

    pub(super) fn is_stream(self) -> bool {
        !matches!(self, Self::Quiet(_))
    }

    /// Resolves when it is.
    pub(super) async fn over(self, meter: Option<&Meter>) {
        let timeout = match self {
            Self::Until(deadline) => return tokio::time::sleep_until(deadline).await,
            Self::Quiet(timeout) | Self::Stream(timeout) => timeout,
        };
        let bytes = || meter.map_or(0, Meter::bytes);
        loop {
            let before = bytes();
            tokio::time::sleep(timeout).await;
            if bytes() == before {
                return;
            }
        }
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_already_waits_for_the_rest() {
        let (begun, timeout) = (std::time::Instant::now(), Duration::from_secs(5));
        for patience in [Patience::Quiet(timeout), Patience::Stream(timeout)] {
            let Patience::Until(deadline) = patience.since(begun) else { panic!("it waits from now on") };
            assert_eq!(deadline, Instant::from_std(begun) + timeout);
            assert!(matches!(Patience::Until(deadline).since(begun), Patience::Until(same) if same == deadline));
        }
    }

    #[test]
    fn deadlines_of_calls() {
        let check = |text: &str, expected: Option<Duration>| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                http::HeaderValue::from_str(text).expect("visible ASCII"),
            )]);
            assert_eq!(timeout(&headers), expected, "{text}");
        };
        check("2H", Some(Duration::from_secs(7200)));
        check("1M", Some(Duration::from_secs(60)));
        check("99999999S", Some(Duration::from_secs(99_999_999)));
        check("250m", Some(Duration::from_millis(250)));
        check("5u", Some(Duration::from_micros(5)));
        check("7n", Some(Duration::from_nanos(7)));
        for wrong in ["", "1", "S", "123456789S", "1s", "-1S", "+1S", "1.5S"] {
            check(wrong, None);
        }
    }
}
