//! The messages. JSON, so that a warden and an engine of different versions understand what both know and pass over the rest.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Raised when an engine could no longer live with an older warden, or a warden with an older engine.
pub const PROTOCOL: u32 = 1;

/// How an engine comes into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// With the warden, or after an engine that is gone.
    Alone,
    /// Beside an engine that still serves.
    Beside,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    #[serde(default)]
    pub core_dumped: bool,
}

/// How many answers were given, and how many of them were errors of our own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    pub all: u64,
    pub faults: u64,
}

/// From the engine. What is said of descriptors goes along with the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToWarden {
    /// All is built, nothing is served yet. How long an upgrade to this engine may be taken back.
    Ready { confirm_ms: u64 },
    /// It accepts connections and looks after the apps.
    Serving,
    /// With listening descriptors that must outlive the engine; more of the same key add up.
    Keep { key: String },
    Drop {
        key: String,
        /// It is still configured, but the daemon ends: who starts it again may want it back.
        #[serde(default)]
        ending: bool,
    },
    /// With fd 0, 1 and 2 of the launch stub, and the ends of 1 and 2 that are read.
    Launch { id: u64, name: String },
    /// With a piece of memory: what the next engine must know of the apps.
    State,
    /// With the texts of the configuration that it serves from now on, and what tells them from others.
    Configured {
        digest: u64,
        /// From the files, because somebody wanted them to be read.
        reloaded: bool,
    },
    /// With a piece of memory that the warden keeps unread: the keys of session tickets.
    Secrets,
    /// No worker is stuck.
    Alive,
    /// Lines for the service manager.
    Notify { text: String },
    /// Begin an engine from this program, which was looked at, beside this one.
    Upgrade { program: PathBuf },
    /// Nothing is accepted any more and the apps are in nobody's hands; `State` came before.
    Paused {
        #[serde(default)]
        answers: Answers,
    },
    /// This engine answers worse than the one before, which is to go on.
    Unfit { why: String },
    #[serde(other)]
    Unknown,
}

/// From the warden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToEngine {
    /// The first message, with the warden's age.
    Welcome {
        engine: u64,
        mode: Mode,
        age_ms: u64,
    },
    /// With descriptors that were kept.
    Kept {
        key: String,
    },
    /// With the texts of a configuration that is to be served instead of what the files say.
    Instead {
        why: String,
    },
    /// The end of what comes before the work.
    Begin,
    /// With what the engine before said last.
    State,
    /// With what the engine before kept secret.
    Secrets,
    /// A process that runs for the engine, or has ended meanwhile; with its two pipes.
    Instance {
        name: String,
        pid: u32,
        exit: Option<Exit>,
    },
    /// Serve. With how the engine before has answered lately.
    Go {
        #[serde(default)]
        before: Answers,
    },
    Launched {
        id: u64,
        pid: u32,
    },
    NotLaunched {
        id: u64,
        errno: i32,
    },
    Exited {
        pid: u32,
        exit: Exit,
    },
    /// Stop accepting, let go of the apps, say `State` and `Paused`.
    Pause,
    /// Accept again and take the apps back: the new engine has failed. Its listeners came before, as `Kept`.
    Resume,
    /// The new engine is there to stay: finish what is under way, and end.
    Drain,
    /// Nobody else reads the QUIC sockets any more.
    TakeQuic,
    /// How the upgrade that was asked for goes.
    Upgrading {
        line: String,
    },
    Upgraded {
        engine: u64,
    },
    /// `busy`: it was not even tried.
    NotUpgraded {
        why: String,
        #[serde(default)]
        busy: bool,
    },
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_says_is_passed_over() {
        let said: ToEngine = serde_json::from_str(r#"{"kind":"dance","with":"me"}"#).expect("a message");
        assert_eq!(said, ToEngine::Unknown);
        let said: ToWarden = serde_json::from_str(r#"{"kind":"ready","confirm_ms":5,"new":true}"#).expect("a message");
        assert_eq!(said, ToWarden::Ready { confirm_ms: 5 });
        // And what an earlier one leaves out is made up for.
        let said: ToWarden = serde_json::from_str(r#"{"kind":"paused"}"#).expect("a message");
        assert_eq!(said, ToWarden::Paused { answers: Answers::default() });
        let said: ToEngine = serde_json::from_str(r#"{"kind":"go"}"#).expect("a message");
        assert_eq!(said, ToEngine::Go { before: Answers::default() });
    }
}
