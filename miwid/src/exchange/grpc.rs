//! gRPC's view of an exchange. A client of gRPC looks for a status in trailers; of an HTTP status it knows little, so what
//! miwid has to say is said as an answer that is nothing but trailers.

use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};

use super::{Body, Failure, Side, headers::MIWI_REASON, reason};

/// Whether a head is that of a gRPC call or answer. gRPC-Web is not: it is ordinary HTTP to a proxy.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    let rest = kind.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|it| it.first().is_none_or(|it| matches!(it, b'+' | b';')))
}

/// Whether a request is a call. HTTP/1.1 cannot carry one, so nobody escapes its deadlines there by calling it so.
pub fn is_call(version: Version, headers: &HeaderMap) -> bool {
    matches!(version, Version::HTTP_2 | Version::HTTP_3) && is_grpc(headers)
}

/// Status codes of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

fn code(failure: &Failure) -> Code {
    match (failure.reason, failure.status.as_u16()) {
        (reason::HEAD_TIMEOUT | reason::BODY_TIMEOUT | reason::CONNECT_TIMEOUT | reason::HOLD_TIMEOUT, _) => {
            Code::DeadlineExceeded
        }
        (reason::LIMIT_URI | reason::LIMIT_BODY | reason::LIMIT_HEADER | reason::HOLD_FULL, _) => {
            Code::ResourceExhausted
        }
        (_, 413 | 414 | 429 | 431) => Code::ResourceExhausted,
        (_, 404 | 405) => Code::Unimplemented,
        (_, 401) => Code::Unauthenticated,
        (_, 403) => Code::PermissionDenied,
        (_, 408 | 504) => Code::DeadlineExceeded,
        (_, 502 | 503) => Code::Unavailable,
        _ if failure.side == Side::Upstream => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// The failure as an answer of trailers only.
pub(super) fn response(failure: &Failure) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code(failure) as u16));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&failure.message)) {
        headers.insert("grpc-message", message);
    }
    headers.insert(MIWI_REASON, HeaderValue::from_static(failure.reason));
    response
}

/// Visible ASCII but `%` stands for itself.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_call() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(is_grpc(&headers), expected, "{kind}");
        }
    }

    #[test]
    fn failures_have_a_code() {
        let check = |side, status: u16, reason, expected| {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(code(&Failure::new(side, status, reason, "x")), expected, "{status} {reason}");
        };
        check(Side::Upstream, 503, reason::NO_ENDPOINT, Code::Unavailable);
        check(Side::Upstream, 502, reason::CONNECT_REFUSED, Code::Unavailable);
        check(Side::Upstream, 502, reason::RESET, Code::Unavailable);
        check(Side::Upstream, 502, reason::UPSTREAM_TLS, Code::Unavailable);
        check(Side::Upstream, 503, reason::APP_STOPPED, Code::Unavailable);
        check(Side::Upstream, 504, reason::HEAD_TIMEOUT, Code::DeadlineExceeded);
        check(Side::Upstream, 504, reason::CONNECT_TIMEOUT, Code::DeadlineExceeded);
        check(Side::Client, 408, reason::BODY_TIMEOUT, Code::DeadlineExceeded);
        check(Side::Upstream, 503, reason::HOLD_FULL, Code::ResourceExhausted);
        check(Side::Client, 413, reason::LIMIT_BODY, Code::ResourceExhausted);
        check(Side::Client, 431, reason::LIMIT_HEADER, Code::ResourceExhausted);
        check(Side::Client, 404, reason::NOT_FOUND, Code::Unimplemented);
        check(Side::Client, 404, reason::NO_SITE, Code::Unimplemented);
        check(Side::Client, 405, reason::METHOD, Code::Unimplemented);
        check(Side::Client, 403, reason::FORBIDDEN, Code::PermissionDenied);
        check(Side::Client, 401, reason::FORBIDDEN, Code::Unauthenticated);
        check(Side::Server, 500, reason::INTERNAL, Code::Internal);
        check(Side::Server, 508, reason::LOOP, Code::Internal);
    }

    #[test]
    fn a_call_is_answered_with_trailers_only() {
        let failure = Failure::upstream(StatusCode::BAD_GATEWAY, reason::RESET, "50 % of ä");
        let call = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        let response = failure.response(&call);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "50 %25 of %C3%A4");
        assert_eq!(response.headers()["miwi-reason"], "reset");
        assert!(http_body::Body::is_end_stream(response.body()));
    }
}
