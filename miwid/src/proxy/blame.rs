//! Whose fault a failed attempt was, and what the client is told. Pure. A request whose own body failed is the client's
//! fault, even though it is the connection to the upstream that broke.

use http::StatusCode;

use crate::{
    exchange::{Cut, Failure, Meter, reason},
    upstream::{Cause, ConnectError},
};

/// The client's fault, if the request failed because its body did.
pub(super) fn cut(meter: Option<&Meter>) -> Option<Failure> {
    let failure = match meter?.cut()? {
        Cut::TooLarge => {
            Failure::client(StatusCode::PAYLOAD_TOO_LARGE, reason::LIMIT_BODY, "The request body is too large.")
        }
        Cut::TooSlow => {
            Failure::client(StatusCode::REQUEST_TIMEOUT, reason::BODY_TIMEOUT, "The request body came too slowly.")
        }
        Cut::Broken => Failure::client(StatusCode::BAD_REQUEST, reason::BAD_REQUEST, "The request body broke off."),
    };
    Some(failure.closing())
}

pub(super) fn unreachable(error: ConnectError) -> Failure {
    let refused = "The site's server cannot be reached.";
    match error {
        ConnectError::Refused(error) => {
            Failure::upstream(StatusCode::BAD_GATEWAY, reason::CONNECT_REFUSED, refused).detail(error)
        }
        ConnectError::TimedOut => Failure::upstream(
            StatusCode::GATEWAY_TIMEOUT,
            reason::CONNECT_TIMEOUT,
            "The site's server did not accept the connection in time.",
        ),
        ConnectError::Failed(error) => {
            Failure::upstream(StatusCode::BAD_GATEWAY, reason::CONNECT_FAILED, refused).detail(error)
        }
        ConnectError::Tls(error) => {
            let message = "The site's server cannot be spoken to securely.";
            Failure::upstream(StatusCode::BAD_GATEWAY, reason::UPSTREAM_TLS, message).detail(error)
        }
    }
}

pub(super) fn broken(cause: Cause) -> Failure {
    let (reason, message, detail) = match cause {
        Cause::NotHttp(detail) => (reason::BAD_RESPONSE, "The site's server gave an answer that is not HTTP.", detail),
        Cause::Broken(detail) => (reason::RESET, "The site's server closed the connection without an answer.", detail),
    };
    Failure::upstream(StatusCode::BAD_GATEWAY, reason, message).detail(detail)
}
