//! The doors that the fuzz targets in `tests/fuzz` come in by; nobody else uses them.

use std::time::{Instant, SystemTime};

use http::{Request, request::Parts};

use super::{
    direct, head,
    plain::{Fields, plain},
};
use crate::{
    exchange::{Context, Failure, Peer, Source},
    snapshot::Settings,
};

pub fn context(peer: Peer) -> Context {
    head::context(peer, Instant::now(), SystemTime::now())
}

/// A request that does without the parser, and how many bytes its head has.
pub fn unparsed(bytes: &[u8], settings: &Settings) -> Option<(usize, Request<Source>)> {
    let mut fields = Fields::default();
    let plain = plain(bytes, settings, &mut fields)?;
    Some((plain.length, direct::request(&bytes[..plain.length], &plain, settings)?))
}

pub fn examine(parts: &mut Parts, context: &mut Context, settings: &Settings) -> Result<(), Failure> {
    head::examine(parts, context, settings)
}
