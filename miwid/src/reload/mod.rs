//! One reload at a time: load, compare, prepare, one swap, dispose. An invalid configuration changes nothing.

mod apply;
mod source;

pub use apply::{Change, Outcome, Parts, Reload, Reloader, Report};
pub use source::{Source, SourceError};
