//! The data plane: threads that accept, connections that speak HTTP, and the life of a request.

mod connection;
mod finish;
mod head;
mod internal;
mod listeners;
mod service;
mod worker;

pub use listeners::{Binding, Listeners, Prepared, addresses};
pub use worker::{Shared, Workers};

/// The doors that the fuzz targets in `tests/fuzz` come in by; nobody else uses them.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::head::{context, examine};
}
