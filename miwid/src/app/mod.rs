//! Managed programs: one supervisor task owns every app, decides by pure state machines and acts through a launcher.
//! It publishes the addresses of ready instances into `upstream` and knows nothing of who sends requests there.

mod adapter;
mod addresses;
mod adoption;
mod aftermath;
mod archive;
mod attempt;
mod backoff;
mod base;
mod cgroup;
mod changes;
mod converge;
mod deploy;
mod effects;
mod environment;
mod fingerprint;
mod handle;
mod idle;
pub mod launcher;
mod launching;
mod lifecycle;
mod lines;
mod managed;
mod notices;
mod operation;
mod output;
mod overrides;
pub mod preflight;
mod probing;
mod questions;
mod recycle;
mod releases;
mod report;
mod rolling;
mod rollout;
pub mod sockets;
pub mod spec;
mod standing;
mod status;
pub mod stub;
mod supervisor;
#[cfg(test)]
mod tests;
mod tree;
mod verbs;
mod watch;

pub use handle::{
    Command, Converged, Done, Handle, Logs as LogStream, Pace, Progress, Refusal, Release, Reply, RestartOptions,
    Supervisor, Tail, Verb,
};
pub use lifecycle::{Class, ExitStatus};
pub use releases::{Form, Part, Upload};
pub use standing::Inheritance;
pub use status::{AppState, AppStatus, Exit, InstanceState, InstanceStatus};
