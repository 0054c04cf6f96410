//! The configuration as it runs: built whole, then put in place by one swap. A request loads it once and keeps it to its
//! end, so that nothing it sees can change under it.

mod available;
mod build;
mod current;

pub use available::capabilities;
pub use build::{Lasting, Settings, Snapshot, build};
pub use current::Current;
