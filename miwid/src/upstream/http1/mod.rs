//! HTTP/1.1 with an endpoint, driven by the request's own task: no task, no channel and no second header map stand between
//! the two connections. Everything that decides where a message ends is pure.

mod buffers;
mod decoder;
mod exchange;
mod head;
mod incoming;
mod lines;
mod request;
#[cfg(test)]
mod tests;
mod upload;
mod wire;

pub(super) use buffers::trim;
pub(super) use exchange::{Fault, hear, poll_lines, send};
pub(super) use incoming::Incoming;
pub use lines::PlainHead;
pub(super) use wire::{Shared, Wire};
