//! Answers in Cloudflare's envelope.
//!
//! | error | where it comes from |
//! |---|---|
//! | 10000, 1016, 1100, 1201, 6003/6111, 9109, 0 (rights), 81057, 81058 | observed in public reports |
//! | 7003, 7000, "Failed to validate requested hostname" | documented |
//! | 1000 of a token check, 1010 for the hostname | from memory, unconfirmed |
//! | 1400 (a body against the schema), 10429 | invented here |

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// What goes back, before any fault is laid over it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let status = StatusCode::from_u16(status).expect("statuses are written by hand");
        Self { status, headers, body: body.into() }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(super) fn ok(result: Value) -> Self {
        Self::json(200, &json!({ "success": true, "errors": [], "messages": [], "result": result }))
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("header values are written by hand");
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }
}

pub(super) fn error(status: u16, code: u32, message: &str) -> Answer {
    errors(status, json!([{ "code": code, "message": message }]))
}

pub(super) fn errors(status: u16, errors: Value) -> Answer {
    Answer::json(status, &json!({ "success": false, "errors": errors, "messages": [], "result": null }))
}

/// Invented: the real API's code for a body that breaks its schema is not known.
pub(super) fn schema(pointer: &str, reason: &str) -> Answer {
    let message = format!("{pointer}: {reason}");
    errors(400, json!([{ "code": 1400, "message": message, "source": { "pointer": pointer } }]))
}

pub(super) fn malformed_authorization() -> Answer {
    let chain = json!([{ "code": 6111, "message": "Invalid format for Authorization header" }]);
    errors(400, json!([{ "code": 6003, "message": "Invalid request headers", "error_chain": chain }]))
}

pub(super) fn no_route(path: &str) -> Answer {
    let message = format!("Could not route to {path}, perhaps your object identifier is invalid?");
    errors(404, json!([{ "code": 7003, "message": message }, { "code": 7000, "message": "No route for that URI" }]))
}

pub(super) fn no_certificate() -> Answer {
    error(404, 7003, "Could not find the certificate")
}

pub(super) fn hostname(name: &str) -> Answer {
    let why = "This zone is either not part of your account, or you do not have access to it";
    error(400, 1010, &format!("Failed to validate requested hostname {name}: {why}"))
}
