//! Managed programs: one supervisor task owns every app, decides by pure state machines and acts through a launcher.
//! It publishes the addresses of ready instances into `upstream` and knows nothing of who sends requests there.

mod adapter;
mod environment;
mod handle;
pub mod preflight;
pub mod sockets;
pub mod spec;
mod status;

pub use handle::{
    Command, Converged, Done, Handle, Logs as LogStream, Progress, Refusal, RestartOptions, Supervisor, Tail,
};
pub use status::{AppState, AppStatus, Exit, InstanceState, InstanceStatus};
