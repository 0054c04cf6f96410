//! Files below a root: located without escaping it, judged by conditions and ranges, streamed.

mod serve;
#[cfg(test)]
mod tests;

mod open;

mod body;
mod conditional;
mod listing;
mod locate;
mod mime;
mod multipart;
mod range;

pub use serve::Root;
