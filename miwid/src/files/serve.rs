//! From a request to a file's answer.

use http::{HeaderMap, Method, Response, Uri};

use crate::exchange::{Body, Failure};

/// One configured root, built when the snapshot is built.
pub struct Root {}

impl Root {
    /// A root that does not exist is a warning of the caller, not an error: it may appear later (404 until then).
    pub fn new(config: &config::Files) -> Self {
        let _ = config;
        Self {}
    }

    /// `path` is the part of the URI's path below the route (`strip_prefix`), still percent-encoded, beginning with `/`;
    /// `uri` is the request's own (for redirects, which keep the query).
    pub async fn serve(
        &self,
        method: &Method,
        uri: &Uri,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Failure> {
        let _ = (method, uri, path, headers);
        Ok(Response::new(Body::Empty))
    }
}
