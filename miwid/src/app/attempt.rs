//! The words of a slot's machine: what can happen to an attempt, what is to be done about it, and why it ended.

use std::time::Duration;

/// What the configuration says about one app's life.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rules {
    pub(super) start_timeout: Duration,
    pub(super) settle_time: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) stop_timeout: Duration,
    pub(super) stop_signal: i32,
    pub(super) auto_restart: config::AutoRestart,
    pub(super) success_codes: Vec<i32>,
    pub(super) fatal_exit_codes: Vec<i32>,
    /// Bad checks in a row that make it unready, good ones that make it ready again.
    pub(super) failures: u32,
    pub(super) successes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Run, and run again after every failure.
    Run,
    /// One attempt that must settle; a failure is the end (the new side of a rollout).
    Trial,
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub core_dumped: bool,
}

/// A failure that time alone may mend, or one that needs somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Passing,
    Permanent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Start(Goal),
    /// A trial has proved itself: from now on it restarts.
    Promote,
    Stop,
    StopNow,
    /// Forget backoff and failure, try now.
    Reset,
    Permit,
    PreflightGood,
    PreflightBad(String),
    Spawned,
    SpawnFailed(String, Class),
    ProbeGood,
    ProbeBad(String),
    /// Another process answers on the address.
    NotOurs(String),
    /// It answers, and waiting will not make it well.
    Hopeless(String),
    Drained,
    Exited(ExitStatus),
    /// Nothing of the tree is left; `leftovers` were found when the sweep began.
    TreeEmpty {
        leftovers: usize,
    },
    Timer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    AskPermit,
    ReturnPermit,
    Preflight,
    Launch,
    /// Begin probing (startup cadence until the first good answer, then the health interval).
    Probe,
    Publish,
    Healthy(bool),
    /// Withdraw the endpoint and report `Drained`.
    Withdraw(Duration),
    Signal,
    KillTree,
    /// The attempt is over: write it down, free its address.
    Record(Cause),
    Settled,
    /// At rest: `stopped`, or a trial that failed.
    Rest,
}

/// Why an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Preflight(String),
    Spawn(String),
    BeforeReady(ExitStatus),
    Daemonised,
    StartTimeout {
        after: Duration,
        probe: Option<String>,
    },
    NotOurs(String),
    Hopeless(String),
    Crashed(ExitStatus),
    /// Ended by itself and that is fine.
    Completed(ExitStatus),
    Stopped(ExitStatus),
    Ignored {
        signal: i32,
        after: Duration,
    },
    KilledNow,
    /// The kernel killed it at its limit.
    OutOfMemory {
        limit: Option<u64>,
        peak: Option<u64>,
    },
}
