//! The data plane: threads that accept, connections that speak HTTP, and the life of a request.

mod clock;
mod connection;
mod direct;
mod dress;
mod edge;
mod errand;
mod finish;
mod front;
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod http1;
mod http2;
#[cfg(feature = "http3")]
mod http3;
mod internal;
mod lasting;
mod listeners;
mod paced;
mod plain;
mod progress;
mod secure;
mod service;
mod shelf;
mod worker;

pub use listeners::{Binding, Kind, Listeners, Prepared, addresses};
pub use worker::{Shared, Workers};
