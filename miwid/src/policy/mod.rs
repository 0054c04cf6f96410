//! What a site's policies make of a request and of its answer. Each decides purely; doing it is a thin second step.

mod compress;
mod compression;

pub use compress::compress;
pub use compression::{Asked, Verdict, decide};
