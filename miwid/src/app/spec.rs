//! How an app is launched, worked out once per generation: a template, because each attempt gets an address of its own.

use std::{path::PathBuf, time::Duration};

use config::{KillMode, Origin, Secret, Severity};

use crate::upstream::Address;

/// Immutable; equal specs mean that a reload need not touch the app. `{port}`, `{socket}`, `{host}` and `{instance}` in
/// `argv` and `env` stand for what `instantiate` fills in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LaunchSpec {
    /// `argv[0]` is an absolute path.
    pub argv: Vec<String>,
    /// The complete environment: nothing is inherited.
    pub env: Vec<(String, Secret)>,
    pub working_dir: PathBuf,
    /// `None`: as the daemon itself.
    pub user: Option<User>,
    pub address: AddressPlan,
    pub kill_mode: KillMode,
    pub stop_signal: i32,
    pub start_timeout: Duration,
    /// How long an idle upstream connection may be kept: shorter than the app's own keep-alive.
    pub upstream_idle: Duration,
    /// What the operator should know: `npm does not forward signals; put node in the script or set script =`.
    pub notices: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Where instances listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AddressPlan {
    /// A fresh port on 127.0.0.1 for every attempt.
    Tcp,
    /// A fresh socket path for every attempt.
    Unix,
    /// The configuration fixes it.
    Fixed(Address),
}

/// What one attempt adds to the spec.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    pub app: &'a str,
    pub slot: u32,
    pub generation: u64,
    pub address: &'a Address,
}

/// Ready for the launcher.
#[derive(Clone, Debug)]
pub struct Launch {
    pub argv: Vec<String>,
    pub env: Vec<(String, Secret)>,
    pub working_dir: PathBuf,
    pub user: Option<User>,
}

/// One thing that a start would stumble over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// `app-cwd-missing` ...
    pub code: &'static str,
    pub message: String,
    pub hint: Option<String>,
    pub key: String,
    pub origin: Origin,
}

impl LaunchSpec {
    /// Stand-in until the adapters arrive.
    pub fn instantiate(&self, attempt: &Attempt<'_>) -> Launch {
        let port = match attempt.address {
            Address::Tcp(address) => address.port().to_string(),
            Address::Unix(_) => String::new(),
        };
        let mut env = self.env.clone();
        env.push(("PORT".into(), Secret::new(port.clone())));
        let argv = self.argv.iter().map(|word| word.replace("{port}", &port)).collect();
        Launch { argv, env, working_dir: self.working_dir.clone(), user: self.user.clone() }
    }
}
