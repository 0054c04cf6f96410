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

/// A request that does without the parser, how many bytes it has, and its content.
pub fn unparsed<'a>(bytes: &'a [u8], settings: &Settings) -> Option<(usize, &'a [u8], Request<Source>)> {
    let mut fields = Fields::default();
    let plain = plain(bytes, settings, &mut fields)?;
    let whole = &bytes[..plain.whole()];
    let request = direct::request(whole, &plain, settings)?;
    // Those that are handed on line by line see no map.
    for field in plain.fields {
        let said = request.headers().get_all(field.name);
        assert!(said.iter().any(|it| it.as_bytes() == field.value), "{} differs", field.name);
    }
    assert_eq!(plain.fields.len(), request.headers().len());
    Some((whole.len(), &whole[plain.length..], request))
}

pub fn examine(parts: &mut Parts, context: &mut Context, settings: &Settings) -> Result<(), Failure> {
    head::examine(parts, context, settings)
}
