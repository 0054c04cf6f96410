//! One reload at a time: load, compare, prepare, one swap, dispose. An invalid configuration changes nothing.

mod apply;

pub use apply::{Change, Outcome, Reload, Reloader, Report};
