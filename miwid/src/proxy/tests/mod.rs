//! The room against real sockets: a small server that forwards, and origins that behave and misbehave.

#![allow(clippy::unwrap_used)]

mod forwarding;
mod holding;
mod multiplexed;
mod rig;
mod trouble;
mod tunnels;
