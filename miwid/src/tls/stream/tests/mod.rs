//! Against the client of the library that we build on.
#![allow(clippy::unwrap_used)]

mod chance;
mod ends;
mod flow;
mod handshake;
mod keys;
mod world;
