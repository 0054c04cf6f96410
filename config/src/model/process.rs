//! Apps: how they are started, watched, replaced and stopped.

use std::{path::PathBuf, time::Duration};

use indexmap::IndexMap;
use serde::Serialize;

use super::{LogFormat, Origin, StreamDrain};
use crate::{ByteSize, Schedule, Secret};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Process {
    pub origin: Origin,
    /// As written; adapters find one when it is absent.
    pub command: Option<String>,
    pub args: Vec<String>,
    pub shell: bool,
    /// Default: the directory of the configuration file.
    pub working_dir: PathBuf,
    pub working_dir_origin: Origin,
    pub auto_restart: AutoRestart,
    pub success_codes: Vec<i32>,
    pub fatal_exit_codes: Vec<i32>,
    pub env: IndexMap<String, Secret>,
    pub env_file: Option<PathBuf>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub allow_root: bool,
    pub instances: u32,
    pub listen: Listen,
    pub start_timeout: Duration,
    /// `None` = 1 s for restart and reload, 10 s for deploy.
    pub settle_time: Option<Duration>,
    pub drain_timeout: Duration,
    pub stop_timeout: Duration,
    /// `SIGTERM`, `TERM` or `15` as written, normalised to the number.
    pub stop_signal: i32,
    pub kill_mode: Option<KillMode>,
    pub restart_strategy: RestartStrategy,
    pub hold: Hold,
    pub on_failure: OnFailure,
    pub memory_limit: Option<ByteSize>,
    /// A percentage has become the size by now.
    pub memory_restart: Option<ByteSize>,
    pub cpu_limit: Option<f64>,
    pub pids_limit: Option<u32>,
    pub max_requests: Option<u64>,
    pub max_lifetime: Option<Duration>,
    pub restart_schedule: Option<Schedule>,
    pub idle_timeout: Option<Duration>,
    pub wake_on: WakeOn,
    pub depends_on: Vec<String>,
    pub pre_deploy: Option<String>,
    pub watch: bool,
    pub logs: AppLogs,
    pub stream_drain: StreamDrain,
    pub on_all_unready: OnAllUnready,
    pub probes: Probes,
    pub python: Python,
    pub nodejs: Nodejs,
    pub tomcat: Tomcat,
    pub jvm: Jvm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoRestart {
    #[default]
    Always,
    OnFailure,
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Listen {
    #[default]
    Auto,
    Tcp,
    Unix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KillMode {
    Mixed,
    Group,
    Process,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartStrategy {
    #[default]
    Auto,
    Rolling,
    Hold,
    Recreate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    #[default]
    Rollback,
    Halt,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Hold {
    pub max_requests: usize,
    pub timeout: Duration,
    pub release_concurrency: usize,
    pub on_start: bool,
}

/// Requests that wake an app that sleeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WakeOn {
    /// Empty = all.
    pub methods: Vec<String>,
    /// Whole paths; a `*` at the end stands for whatever follows. Empty = all.
    pub paths: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AppLogs {
    /// `None` = `logs/NAME.log` beside the access log.
    pub path: Option<PathBuf>,
    pub format: LogFormat,
    pub max_size: Option<ByteSize>,
    pub max_backups: Option<usize>,
    /// Bytes per second that one app may write; `None` = 20 MB.
    pub rate_limit: Option<ByteSize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAllUnready {
    #[default]
    Serve,
    Refuse,
    Hold,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Probes {
    pub startup: Option<Probe>,
    pub readiness: Option<Probe>,
    pub liveness: Option<Probe>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Probe {
    pub kind: ProbeKind,
    pub interval: Duration,
    pub timeout: Duration,
    pub failures: u32,
    pub successes: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    Http { path: String, expect: Vec<u16> },
    Tcp,
    Exec { command: Vec<String> },
    Log { pattern: String },
    Notify,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Python {
    pub app: Option<String>,
    pub interface: Interface,
    pub server: Option<String>,
    pub venv: Option<PathBuf>,
    pub workers: Option<u32>,
    pub threads: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Interface {
    #[default]
    Auto,
    Wsgi,
    Asgi,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Nodejs {
    pub script: Option<String>,
    pub package_manager: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tomcat {
    pub war: Option<PathBuf>,
    pub context: Option<String>,
    pub home: Option<PathBuf>,
    pub base_template: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Jvm {
    pub java_home: Option<PathBuf>,
    pub heap: Option<ByteSize>,
    pub gc: Option<String>,
    pub options: Vec<String>,
    pub profile: Option<String>,
}
