//! One reload at a time: load, compare, prepare, one swap, dispose. An invalid configuration changes nothing.

mod apply;
mod certificates;
mod source;

pub use apply::{Change, Outcome, Parts, Reload, Reloader, Report};
pub use certificates::tell_stand_ins;
pub use source::{Source, SourceError, unsafe_reason};
