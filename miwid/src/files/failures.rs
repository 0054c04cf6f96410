//! Why files are not given, as answers. What is hidden, and what is behind a link that may not be followed, is "not there".

use http::{HeaderValue, StatusCode, header};

use super::{locate::Refusal, open::OpenError};
use crate::exchange::{Failure, reason};

pub(super) const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD");

pub(super) fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Malformed => {
            Failure::client(StatusCode::BAD_REQUEST, reason::BAD_REQUEST, "The path of the request is malformed.")
        }
        Refusal::NotShown => not_found(),
    }
}

pub(super) fn open_failure(error: OpenError) -> Failure {
    match error {
        OpenError::NotFound => not_found(),
        OpenError::Denied => forbidden(),
        OpenError::Trouble(errno) => {
            Failure::server(StatusCode::INTERNAL_SERVER_ERROR, reason::INTERNAL, "The file could not be opened.")
                .detail(errno.to_string())
        }
    }
}

pub(super) fn not_found() -> Failure {
    Failure::client(StatusCode::NOT_FOUND, reason::NOT_FOUND, "There is nothing here.")
}

pub(super) fn forbidden() -> Failure {
    Failure::client(StatusCode::FORBIDDEN, reason::FORBIDDEN, "This may not be seen.")
}

pub(super) fn method_failure() -> Failure {
    Failure::client(StatusCode::METHOD_NOT_ALLOWED, reason::METHOD, "Files can only be read.")
        .header(header::ALLOW, ALLOW)
}

pub(super) fn precondition_failure() -> Failure {
    Failure::client(StatusCode::PRECONDITION_FAILED, reason::PRECONDITION, "A condition of the request does not hold.")
}

pub(super) fn range_failure(size: u64) -> Failure {
    let failure = Failure::client(StatusCode::RANGE_NOT_SATISFIABLE, reason::RANGE, "The file has no such bytes.");
    match HeaderValue::try_from(format!("bytes */{size}")) {
        Ok(value) => failure.header(header::CONTENT_RANGE, value),
        Err(_) => failure,
    }
}

pub(super) fn read_failure(error: std::io::Error) -> Failure {
    Failure::server(StatusCode::INTERNAL_SERVER_ERROR, reason::INTERNAL, "The file could not be read.")
        .detail(error.to_string())
}
