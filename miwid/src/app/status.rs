//! What an operator can see of an app. Plain data, published by the supervisor after every change.

use std::time::SystemTime;

#[derive(Clone, Debug, PartialEq)]
pub struct AppStatus {
    pub name: String,
    /// The backend's host.
    pub site: String,
    pub app_type: config::AppType,
    pub state: AppState,
    pub ready: u32,
    /// Instances wanted (0 when stopped).
    pub desired: u32,
    pub generation: u64,
    /// What `deploy` brought; `None`: what the configuration names.
    pub release: Option<String>,
    /// Unplanned restarts since the daemon started.
    pub restarts: u64,
    /// `rolling`, `hold` or `recreate`, as resolved.
    pub strategy: config::RestartStrategy,
    /// One line: why it is not running as it should; empty when all is well.
    pub reason: String,
    /// The start report of the last failure (several lines), empty when none.
    pub report: String,
    pub instances: Vec<InstanceStatus>,
    /// What the operator should know of an app that runs all the same: `it runs as root`.
    pub notices: Vec<String>,
    /// What runs an operation on it now: `restart by anna (uid 1000), 12 s ago`.
    pub operation: Option<String>,
    /// It is the first start, which gives way to anything.
    pub yields: bool,
}

/// Derived from the slots, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppState {
    Stopped,
    Starting,
    Running,
    Degraded,
    Rolling,
    Holding,
    CrashLoop,
    Paused,
    /// Asleep until a request comes.
    Idle,
    Failed,
}

impl AppState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Rolling => "rolling",
            Self::Holding => "holding",
            Self::CrashLoop => "crash-loop",
            Self::Paused => "paused",
            Self::Idle => "idle",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct InstanceStatus {
    /// Unique over the daemon's life: `shop-0-3f9a`.
    pub id: String,
    pub slot: u32,
    pub pid: Option<u32>,
    pub state: InstanceState,
    pub address: String,
    pub started: Option<SystemTime>,
    pub restarts: u64,
    pub memory_bytes: u64,
    pub cpu_percent: f64,
    pub in_flight: usize,
    pub last_exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstanceState {
    Queued,
    Preflight,
    Spawning,
    Starting,
    Ready,
    Unready,
    Draining,
    Stopping,
    Killing,
    Stuck,
    Exited,
    Backoff,
    Failed,
    Stopped,
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    pub at: SystemTime,
    pub code: Option<i32>,
    /// `SIGSEGV`.
    pub signal: Option<String>,
    pub core_dumped: bool,
    /// `exited before ready (code 0)`, `killed (ignored SIGTERM for 10 s)` ...
    pub cause: String,
    /// Its last lines of output.
    pub last_lines: Vec<String>,
}
