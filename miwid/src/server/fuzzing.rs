//! The doors that the fuzz targets in `tests/fuzz` come in by; nobody else uses them.

use http::request::Parts;

use super::head;
use crate::{
    exchange::{Context, Failure, Peer},
    snapshot::Settings,
};

pub fn context(peer: Peer) -> Context {
    head::context(peer)
}

pub fn examine(parts: &mut Parts, context: &mut Context, settings: &Settings) -> Result<(), Failure> {
    head::examine(parts, context, settings)
}
