//! The doors that the fuzz targets in `tests/fuzz` come in by; nobody else uses them.

use http::{HeaderMap, HeaderValue, request::Parts};

use super::headers;
use crate::exchange::{Context, Failure};

pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    headers::strip_hop_by_hop(headers);
}

/// The head as a whole.
pub fn prepare(head: Parts, context: &Context, target: &str, host: &HeaderValue) -> Result<Parts, Failure> {
    let (mut head, more) = headers::prepare(head, context, target, host)?;
    head.headers.extend(more.to_map());
    Ok(head)
}
