//! A double of an ACME authority (RFC 8555) for what Pebble 2.4 does not do: renewal information (RFC 9773), replacements,
//! refusals of every type at every step, nonces that are never good. Every request's signature, nonce and address are judged;
//! challenges are not: whoever answers one is believed. It listens on the loopback only.

mod double;
mod jws;
mod orders;

pub use double::{Authority, Step, Window};
