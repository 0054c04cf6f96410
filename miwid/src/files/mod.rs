//! Files below a root: located without escaping it, judged by conditions and ranges, streamed.

mod serve;

pub use serve::Root;
