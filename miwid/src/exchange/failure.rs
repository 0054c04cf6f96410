//! A request that ends without the answer it asked for: whose side it was, what to tell the client, what to log.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{Body, grpc};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Upstream,
    Server,
}

/// The tokens of `miwi-reason`. Fixed: operators and scripts match on them.
pub mod reason {
    pub const NO_SITE: &str = "no-site";
    pub const BAD_REQUEST: &str = "bad-request";
    pub const LIMIT_URI: &str = "limit-uri";
    pub const LIMIT_BODY: &str = "limit-body";
    pub const LIMIT_HEADER: &str = "limit-header";
    pub const NOT_FOUND: &str = "not-found";
    pub const FORBIDDEN: &str = "forbidden";
    pub const METHOD: &str = "method";
    pub const RANGE: &str = "range";
    pub const PRECONDITION: &str = "precondition";
    pub const NO_ENDPOINT: &str = "no-endpoint";
    pub const CONNECT_REFUSED: &str = "connect-refused";
    pub const CONNECT_TIMEOUT: &str = "connect-timeout";
    pub const CONNECT_FAILED: &str = "connect-failed";
    pub const UPSTREAM_TLS: &str = "upstream-tls";
    pub const HEAD_TIMEOUT: &str = "head-timeout";
    pub const BODY_TIMEOUT: &str = "body-timeout";
    pub const RESET: &str = "reset";
    pub const BAD_RESPONSE: &str = "bad-response";
    pub const HOLD_FULL: &str = "hold-full";
    pub const HOLD_TIMEOUT: &str = "hold-timeout";
    pub const APP_STOPPED: &str = "app-stopped";
    pub const APP_FAILED: &str = "app-failed";
    /// The app sleeps, and `wake_on` does not name the request.
    pub const APP_IDLE: &str = "app-idle";
    /// Who asks is not served here.
    pub const DENIED: &str = "denied";
    /// Who asks does so too often: 429.
    pub const RATE_LIMIT: &str = "rate-limit";
    /// A page of another site wants something changed.
    pub const CSRF: &str = "csrf";
    /// In records only, of what was let pass because a policy only reports.
    pub const WOULD_DENY: &str = "would-deny";
    pub const WOULD_CSRF: &str = "would-csrf";
    pub const WOULD_RATE_LIMIT: &str = "would-rate-limit";
    /// The connection was made for another host, or under another policy: 421.
    pub const MISDIRECTED: &str = "misdirected";
    /// The host is only for clients that show a certificate.
    pub const CLIENT_CERTIFICATE: &str = "client-certificate";
    /// It came before the handshake was over, and may have been sent by somebody else: 425.
    pub const EARLY_DATA: &str = "early-data";
    pub const LOOP: &str = "loop";
    pub const INTERNAL: &str = "internal";
}

#[derive(Clone, Debug)]
pub struct Failure {
    pub side: Side,
    pub status: StatusCode,
    pub reason: &'static str,
    /// One sentence for the client. Never a path, an address or a secret.
    pub message: Cow<'static, str>,
    /// For our log only.
    pub detail: Option<String>,
    pub retry_after: Option<Duration>,
    /// `Allow` of a 405, `Content-Range` of a 416 ...
    pub headers: Vec<(header::HeaderName, HeaderValue)>,
    /// Answer, then close the connection (the request could not be read to its end).
    pub close: bool,
}

impl Failure {
    pub fn new(side: Side, status: StatusCode, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            side,
            status,
            reason,
            message: message.into(),
            detail: None,
            retry_after: None,
            headers: Vec::new(),
            close: false,
        }
    }

    pub fn client(status: StatusCode, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Side::Client, status, reason, message)
    }

    pub fn upstream(status: StatusCode, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Side::Upstream, status, reason, message)
    }

    pub fn server(status: StatusCode, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Side::Server, status, reason, message)
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// A short plain body, or JSON when the request prefers it; for a gRPC call, a status that its client understands.
    pub fn response(&self, request: &HeaderMap) -> Response<Body> {
        if grpc::is_grpc(request) {
            return grpc::response(self);
        }
        let json =
            request.get(header::ACCEPT).is_some_and(|it| it.as_bytes().windows(16).any(|it| it == b"application/json"));
        let (content_type, body) = if json {
            let body =
                serde_json::json!({ "status": self.status.as_u16(), "reason": self.reason, "message": self.message });
            ("application/json", format!("{body}\n"))
        } else {
            ("text/plain; charset=utf-8", format!("{} {}\n", self.status.as_u16(), self.message))
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(super::headers::MIWI_REASON, HeaderValue::from_static(self.reason));
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        response
    }
}
