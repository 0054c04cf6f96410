//! From a host to its site, from a path to its target. What a request will meet is decided here, by pure functions over
//! tables that were built when the configuration was loaded.

mod hosts;
mod path;
mod plan;
mod site;

pub use hosts::{Hosts, host_of};
pub use path::normalized;
pub use plan::{NoPlan, Plan, plan};
pub use site::{Route, Site, Target};
