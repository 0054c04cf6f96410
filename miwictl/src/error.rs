//! What went wrong, for people and for scripts: a message, what to do about it, and the exit code that INTERFACE fixes.

use serde::Serialize;
use tonic::{Code, Status};

pub(crate) const UNEXPECTED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const UNREACHABLE: u8 = 3;
pub(crate) const DENIED: u8 = 4;
pub(crate) const NOT_FOUND: u8 = 5;
pub(crate) const FAILED: u8 = 6;
pub(crate) const TIMEOUT: u8 = 7;
pub(crate) const CONFLICT: u8 = 8;
pub(crate) const PARTLY: u8 = 9;
pub(crate) const INTERRUPTED: u8 = 130;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Error {
    /// Boxed text keeps the whole small enough to be returned by value.
    pub(crate) code: Box<str>,
    pub(crate) exit: u8,
    pub(crate) message: String,
    pub(crate) hint: String,
    pub(crate) last_lines: Vec<String>,
    /// The start report; for people, below the message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) report: String,
    /// Standard output already has the answer: say only what talk there is.
    #[serde(skip)]
    pub(crate) answered: bool,
}

pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(exit: u8, code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), exit, message: message.into(), ..Self::default() }
    }

    pub(crate) fn unexpected(message: impl Into<String>) -> Self {
        Self::new(UNEXPECTED, "internal", message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(crate) fn answered(mut self) -> Self {
        self.answered = true;
        self
    }

    pub(crate) fn unavailable(what: &str) -> Self {
        Self::new(USAGE, "not-available", format!("`{what}` is not available in this version"))
            .hint("`miwictl --help` shows what is")
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let (exit, code) = match status.code() {
            Code::InvalidArgument => (USAGE, "usage"),
            Code::Unavailable => (UNREACHABLE, "unreachable"),
            Code::PermissionDenied | Code::Unauthenticated => (DENIED, "permission-denied"),
            Code::NotFound => (NOT_FOUND, "not-found"),
            Code::DeadlineExceeded => (TIMEOUT, "timeout"),
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => (CONFLICT, "conflict"),
            _ => (UNEXPECTED, "internal"),
        };
        let error = Self::new(exit, code, status.message());
        match exit {
            UNREACHABLE => {
                error.hint("the daemon went away during the call; `miwictl status` shows whether it is back")
            }
            DENIED => error.hint("who may do what stands in `[control.acl]`; ask an admin, or use sudo"),
            _ => error,
        }
    }
}

impl From<proto::v1::OperationError> for Error {
    fn from(error: proto::v1::OperationError) -> Self {
        Self {
            code: error.code.into(),
            exit: u8::try_from(error.exit).unwrap_or(UNEXPECTED),
            message: error.message,
            hint: error.hint,
            last_lines: error.last_lines,
            report: error.report,
            answered: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_exit_code() {
        let cases = [
            (Code::InvalidArgument, 2),
            (Code::Unavailable, 3),
            (Code::PermissionDenied, 4),
            (Code::NotFound, 5),
            (Code::AlreadyExists, 8),
            (Code::FailedPrecondition, 8),
            (Code::Internal, 1),
        ];
        for (code, exit) in cases {
            assert_eq!(Error::from(Status::new(code, "x")).exit, exit, "{code:?}");
        }
    }
}
