//! The life of a proxied request (hot).

use std::{rc::Rc, sync::Arc};

use http::{Request, Response};

use crate::{
    exchange::{Body, Context, Failure, Inbound},
    upstream::{Pools, Set},
};

/// One proxied route, built when the snapshot is built.
pub struct Forwarder {
    pub set: Arc<Set>,
}

/// What `forward` is given beside the request.
pub struct Exchange<'a> {
    pub context: &'a mut Context,
    pub pools: &'a Rc<Pools>,
    /// Path and query to ask the upstream for (after `strip_prefix`).
    pub target: &'a str,
}

impl Forwarder {
    pub fn new(set: Arc<Set>, proxy: &config::Proxy, server: &config::Server) -> Self {
        let _ = (proxy, server);
        Self { set }
    }

    pub async fn forward(&self, request: Request<Inbound>, exchange: Exchange<'_>) -> Result<Response<Body>, Failure> {
        let _ = (request, exchange);
        Ok(Response::new(Body::Empty))
    }
}
