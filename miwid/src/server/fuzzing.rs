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

/// A request that does without the parser.
pub struct Unparsed<'a> {
    /// How many bytes it has, with its content.
    pub length: usize,
    pub content: &'a [u8],
    pub is_last: bool,
    pub request: Request<Source>,
}

pub fn unparsed<'a>(bytes: &'a [u8], settings: &Settings) -> Option<Unparsed<'a>> {
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
    Some(Unparsed { length: whole.len(), content: &whole[plain.length..], is_last: plain.is_last, request })
}

pub fn examine(parts: &mut Parts, context: &mut Context, settings: &Settings) -> Result<(), Failure> {
    head::examine(parts, context, settings)
}
