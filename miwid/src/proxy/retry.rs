//! Whether a failed attempt may be made again. Pure. A request is never sent twice unless nothing of it went out, or
//! doing it twice is the same as doing it once and there is no body to send again.

use http::Method;

/// How far an attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// No connection: the body has not been touched.
    Nothing,
    /// The connection came from the pool and turned out to be dead before anything was written, or its other end said
    /// that it has not looked at the request.
    NothingOnReused,
    /// It was written to a connection that had been idle; the other end was probably closing it.
    OnReused,
    /// It was written to a fresh connection, which then broke.
    OnFresh,
    /// It was written, and no answer came in time: the endpoint is still busy with it.
    Unanswered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Another endpoint, if there is one.
    Elsewhere,
    /// The same endpoint on a fresh connection.
    Fresh,
    GiveUp,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub sent: Sent,
    /// May be repeated by its method, and has no body.
    pub repeatable: bool,
    /// Retries that were made elsewhere already.
    pub retried: u32,
    pub retries: u32,
}

pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

pub(super) fn decide(attempt: Attempt) -> Decision {
    let left = attempt.retried < attempt.retries;
    match attempt.sent {
        Sent::NothingOnReused => Decision::Fresh,
        Sent::OnReused if attempt.repeatable => Decision::Fresh,
        Sent::Nothing if left => Decision::Elsewhere,
        // It may have killed the endpoint: once more, not through the whole set.
        Sent::OnFresh if attempt.repeatable && left && attempt.retried == 0 => Decision::Elsewhere,
        _ => Decision::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_repeated() {
        use Decision::{Elsewhere, Fresh, GiveUp};
        for (sent, repeatable, retried, retries, decision) in [
            (Sent::Nothing, false, 0, 1, Elsewhere),
            (Sent::Nothing, true, 1, 1, GiveUp),
            (Sent::Nothing, true, 0, 0, GiveUp),
            (Sent::NothingOnReused, false, 9, 1, Fresh),
            (Sent::OnReused, true, 9, 1, Fresh),
            (Sent::OnReused, false, 0, 1, GiveUp),
            (Sent::OnFresh, false, 0, 5, GiveUp),
            (Sent::OnFresh, true, 0, 5, Elsewhere),
            (Sent::OnFresh, true, 1, 5, GiveUp),
            (Sent::Unanswered, true, 0, 5, GiveUp),
        ] {
            let attempt = Attempt { sent, repeatable, retried, retries };
            assert_eq!(decide(attempt), decision, "{attempt:?}");
        }
    }

    #[test]
    fn post_and_patch_are_not_idempotent() {
        for (method, idempotent) in
            [("GET", true), ("PUT", true), ("DELETE", true), ("POST", false), ("PATCH", false), ("BREW", false)]
        {
            assert_eq!(
                is_idempotent(&Method::from_bytes(method.as_bytes()).expect("a method")),
                idempotent,
                "{method}"
            );
        }
    }
}
