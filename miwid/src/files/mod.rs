//! Files below a root: located without escaping it, judged by conditions and ranges, streamed.

mod serve;
#[cfg(test)]
mod tests;

mod cache;
mod open;

mod body;
mod conditional;
mod failures;
mod listing;
mod locate;
mod mime;
mod multipart;
mod range;
mod siblings;
mod variants;

pub use cache::Cache;
pub use serve::{Root, Sought};

/// The doors that the fuzz targets in `tests/fuzz` come in by; nobody else uses them.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::{
        locate::{Located, Refusal, locate},
        range::{Slice, Wanted, wanted},
    };
}
