//! What the daemon says about itself: log lines, access records, metrics, events, readiness. Ground floor: everybody
//! may speak here, and nothing here knows anybody.

mod access;
mod events;
mod exposition;
mod format;
mod log;
mod metrics;
mod plan;
mod readiness;
mod rotation;

pub use access::{AccessBuffer, AccessLog, Record};
pub use events::{Event, Events, Kind as EventKind};
pub use exposition::{EndpointCounts, Gauges, Renewal};
pub use log::{LogFile, Logs, flush, init};
pub use metrics::{Handshake, Metrics, Refused, Shard};
pub use readiness::{Readiness, State};
pub use rotation::RotatingFile;
