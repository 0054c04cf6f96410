//! The flags of the chaos app: one for each way an app can be difficult.

use std::{fmt, net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};

#[derive(Clone, Debug, Parser)]
#[command(about = "An app that misbehaves on demand")]
pub(crate) struct Options {
    /// `auto` (MIWI_SOCKET, else PORT), `tcp`, `unix`, or an address.
    #[arg(long, default_value = "auto")]
    pub(crate) listen: String,
    /// Milliseconds before it listens.
    #[arg(long, default_value_t = 0)]
    pub(crate) ready_after: u64,
    /// Takes SIGTERM and goes on.
    #[arg(long)]
    pub(crate) ignore_term: bool,
    /// Leaves with this code: at once, or after `--exit-after`.
    #[arg(long)]
    pub(crate) exit_code: Option<u8>,
    /// Milliseconds until it leaves.
    #[arg(long)]
    pub(crate) exit_after: Option<u64>,
    /// Leaves a child in its own session that holds the port and ignores SIGTERM.
    #[arg(long)]
    pub(crate) fork_holder: bool,
    /// Leaves the serving to a child and exits with 0.
    #[arg(long)]
    pub(crate) daemonize: bool,
    /// Bytes a second to standard output, for `--log-flood-for` milliseconds; 0 is as fast as it goes.
    #[arg(long)]
    pub(crate) log_flood: Option<u64>,
    #[arg(long, default_value_t = 5000)]
    pub(crate) log_flood_for: u64,
    /// Processes that each write `--log-lines` numbered lines of `--log-line-bytes` to the same pipe.
    #[arg(long, default_value_t = 1)]
    pub(crate) log_writers: u32,
    #[arg(long, default_value_t = 0)]
    pub(crate) log_lines: u64,
    #[arg(long, default_value_t = 128)]
    pub(crate) log_line_bytes: usize,
    /// What `/health` answers: a status, `hang`, or `flap:N` (N good, N bad, ...).
    #[arg(long, default_value = "200")]
    pub(crate) health: String,
    /// When this file holds one of the above, it wins: a test can turn an app sick and well again.
    #[arg(long)]
    pub(crate) health_file: Option<PathBuf>,
    /// Milliseconds that `/slow` takes.
    #[arg(long, default_value_t = 700)]
    pub(crate) slow_request: u64,
    /// Bytes a second that it never gives back (256 MB at most).
    #[arg(long)]
    pub(crate) leak: Option<usize>,
    /// Dies of SIGABRT when asked for this path.
    #[arg(long)]
    pub(crate) crash_on: Option<String>,
    /// Stays alive without a listener.
    #[arg(long)]
    pub(crate) no_listen: bool,
    /// Listens somewhere else than it was told.
    #[arg(long)]
    pub(crate) wrong_port: bool,
    /// Leaves with this code on SIGTERM.
    #[arg(long)]
    pub(crate) sigterm_exit: Option<u8>,
    /// Short-lived orphans a second, for five seconds.
    #[arg(long, default_value_t = 0)]
    pub(crate) orphans: u32,
    /// A child that keeps standard output open for so many milliseconds after its parent is gone.
    #[arg(long)]
    pub(crate) hold_stdout: Option<u64>,
    /// `echo`: `/ws` answers every message with itself.
    #[arg(long, default_value = "echo")]
    pub(crate) websocket: String,
    /// Appends its pid at every start.
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Appends a line for every SIGTERM it takes (and so takes it instead of dying of it).
    #[arg(long)]
    pub(crate) term_file: Option<PathBuf>,
    /// Fails at its start while this file exists.
    #[arg(long)]
    pub(crate) fail_if_exists: Option<PathBuf>,
    /// The role of a child; not for humans.
    #[arg(long, hide = true)]
    pub(crate) role: Option<Role>,
    #[arg(long, hide = true, default_value_t = 0)]
    pub(crate) number: u32,
}

/// What a child of the chaos app does.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Role {
    /// Holds the listener that is its standard input, ignoring SIGTERM.
    Holder,
    /// Serves on the listener that is its standard input.
    Server,
    /// Writes numbered lines.
    Writer,
    /// Keeps standard output open.
    Lingerer,
}

/// Where to listen.
#[derive(Clone, Debug)]
pub(crate) enum Where {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Options {
    /// Where the flags and the environment say it should listen.
    pub(crate) fn place(&self, variable: impl Fn(&str) -> Option<String>) -> Where {
        let port = variable("PORT").unwrap_or_default();
        let tcp = || {
            let port: u16 = port.parse().unwrap_or(3000);
            let port = if self.wrong_port { 0 } else { port };
            Where::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
        };
        let socket = || variable("MIWI_SOCKET").or_else(|| port.starts_with('/').then(|| port.clone()));
        match self.listen.as_str() {
            "tcp" => tcp(),
            "unix" => Where::Unix(socket().unwrap_or_else(|| "chaos.sock".to_owned()).into()),
            "auto" => socket().map_or_else(tcp, |path| Where::Unix(path.into())),
            given => match (given.strip_prefix("unix:"), given.parse()) {
                (Some(path), _) => Where::Unix(path.into()),
                (None, Ok(address)) => Where::Tcp(address),
                (None, Err(_)) => Where::Tcp(SocketAddr::from(([127, 0, 0, 1], given.parse().unwrap_or(3000)))),
            },
        }
    }
}
