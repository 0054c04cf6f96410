//! Header names that the `http` crate does not know.

use http::HeaderName;

pub const MIWI_REASON: HeaderName = HeaderName::from_static("miwi-reason");
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const CF_CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
pub const CF_CONNECTING_IPV6: HeaderName = HeaderName::from_static("cf-connecting-ipv6");
pub const CF_RAY: HeaderName = HeaderName::from_static("cf-ray");
pub const CF_VISITOR: HeaderName = HeaderName::from_static("cf-visitor");
pub const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
pub const X_REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");
