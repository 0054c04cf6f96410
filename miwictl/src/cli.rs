//! The command line, as clap sees it. Names are fixed: scripts type them.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

mod cloudflare;

pub(crate) use cloudflare::{CloudflareCommand, PurgeArgs};

use crate::report::Period;

#[derive(Debug, Parser)]
#[command(
    name = "miwictl",
    version,
    about = "Looks at a running miwid and steers it",
    propagate_version = true,
    after_help = "Examples:\n  miwictl status\n  miwictl app restart shop\n  miwictl reload --dry-run"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Globals {
    /// The daemon's control socket
    #[arg(long, global = true, env = "MIWID_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// How to print data
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// How long to wait for an operation (it goes on without us): 30, 30s, 5m
    #[arg(long, global = true, value_parser = duration, value_name = "DUR")]
    pub(crate) timeout: Option<Duration>,
    /// Print the operation's id instead of waiting for its end
    #[arg(long, global = true)]
    pub(crate) no_wait: bool,
    /// Names the request: the same id again is the same operation
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Colour the talk
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub(crate) color: Color,
    /// No talk but errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// More talk
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Jsonl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How the daemon and its apps are, on one screen
    #[command(after_help = "Examples:\n  miwictl status\n  miwictl status --check && echo healthy")]
    Status {
        /// Exit with 6 when it is degraded
        #[arg(long)]
        check: bool,
        /// Print again whenever something changed
        #[arg(long)]
        watch: bool,
    },
    /// Apply the configuration as it now stands in the files
    #[command(after_help = "Examples:\n  miwictl reload\n  miwictl reload --dry-run")]
    Reload(ReloadArgs),
    /// Look at configurations
    #[command(
        subcommand,
        after_help = "Examples:\n  miwictl config check miwid.toml\n  miwictl config diff old.toml new.toml"
    )]
    Config(ConfigCommand),
    /// Look at apps and steer them
    #[command(
        subcommand,
        after_help = "Examples:\n  miwictl app list\n  miwictl app restart shop\n  miwictl app logs shop -f"
    )]
    App(AppCommand),
    /// Operations: what runs and what ran
    #[command(subcommand, after_help = "Examples:\n  miwictl op list\n  miwictl op watch 3f9a0c11d2e4")]
    Op(OpCommand),
    /// Upstreams and their endpoints
    #[command(
        subcommand,
        after_help = "Examples:\n  miwictl upstream list\n  miwictl upstream drain api 127.0.0.1:9001"
    )]
    Upstream(UpstreamCommand),
    /// Log files
    #[command(subcommand, after_help = "Examples:\n  miwictl logs rotate --all\n  miwictl logs tail access -f")]
    Logs(LogsCommand),
    /// What happened
    #[command(after_help = "Examples:\n  miwictl events --since 10m\n  miwictl events -f -o jsonl")]
    Events {
        #[arg(short, long)]
        follow: bool,
        #[arg(long, value_parser = duration, value_name = "DUR")]
        since: Option<Duration>,
    },
    /// Drain and stop the daemon
    #[command(after_help = "Examples:\n  miwictl shutdown\n  miwictl shutdown --no-wait")]
    Shutdown,
    /// Completions for a shell
    #[command(
        after_help = "Examples:\n  miwictl completions bash > /etc/bash_completion.d/miwictl\n  miwictl completions fish | source"
    )]
    Completions { shell: Shell },
    /// Write manual pages into a directory
    #[command(after_help = "Examples:\n  miwictl man /usr/share/man/man1\n  miwictl man .")]
    Man { dir: PathBuf },
    /// Certificates
    #[command(
        subcommand,
        after_help = "Examples:\n  miwictl cert list\n  miwictl cert request shop.example.com\n  sudo miwictl cert trust"
    )]
    Cert(CertCommand),
    /// Cloudflare
    #[command(
        subcommand,
        after_help = "Examples:\n  miwictl cloudflare check\n  miwictl cloudflare ips --refresh\n  miwictl cloudflare purge https://shop.example.com/logo.svg"
    )]
    Cloudflare(CloudflareCommand),
    /// The cache (not available in this version)
    Cache(Later),
    /// Full-screen view (not available in this version)
    Top(Later),
    /// Why a URL is answered as it is (not available in this version)
    Explain(Later),
    /// Replace the running program without a pause; apps and connections go on
    #[command(after_help = "Examples:\n  miwictl upgrade\n  miwictl upgrade --binary ./target/release/miwid")]
    Upgrade {
        /// The new program; what now lies where the daemon was started from if not given
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CertRequest {
    /// Host names, wildcards too
    #[arg(required = true)]
    pub(crate) hosts: Vec<String>,
    /// What it is called; the first host if not given
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Who signs; as configured if not given
    #[arg(long, value_parser = ["cloudflare-origin", "acme", "local"])]
    pub(crate) issuer: Option<String>,
    /// Days that Origin CA is asked for: 7, 30, 90, 365, 730, 1095 or 5475
    #[arg(long, value_parser = validity)]
    pub(crate) validity: Option<u32>,
    /// Although there is one that is not due
    #[arg(long)]
    pub(crate) force: bool,
    /// Only say what would be requested
    #[arg(long)]
    pub(crate) dry_run: bool,
}

fn validity(text: &str) -> Result<u32, String> {
    const DAYS: [u32; 7] = [7, 30, 90, 365, 730, 1095, 5475];
    text.parse().ok().filter(|it| DAYS.contains(it)).ok_or_else(|| format!("one of {DAYS:?}"))
}

/// Takes whatever is typed, so that the answer is about the version and not about the arguments.
#[derive(Debug, Args)]
pub(crate) struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) rest: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Another file, from now on
    #[arg(short, long = "config", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Apply the rest even when an app's preflight fails
    #[arg(long)]
    pub(crate) allow_failing_apps: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every problem of a file; no daemon needed
    Check {
        file: Option<PathBuf>,
        /// Warnings count as errors
        #[arg(long)]
        strict: bool,
    },
    /// The configuration as understood: of a file, or the one that runs
    Show { file: Option<PathBuf> },
    /// What differs between two files
    Diff { old: PathBuf, new: PathBuf },
    /// The JSON schema of the configuration
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Targets {
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) names: Vec<String>,
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// All apps
    List,
    /// One app with its instances
    Status { name: String },
    /// Start and wait until healthy or failed
    Start {
        #[command(flatten)]
        targets: Targets,
    },
    /// Drain and stop
    Stop {
        #[command(flatten)]
        targets: Targets,
        /// Without draining
        #[arg(long)]
        now: bool,
    },
    /// Replace the instances without losing a request
    Restart {
        #[command(flatten)]
        targets: Targets,
        /// Stop first, then start
        #[arg(long)]
        hard: bool,
        /// Only this slot
        #[arg(long, value_name = "N")]
        instance: Option<u32>,
        #[arg(long, value_parser = ["halt", "rollback"])]
        on_failure: Option<String>,
    },
    /// Set the number of instances
    Scale {
        name: String,
        /// To run none, stop the app
        #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
        instances: u32,
    },
    /// Hold new requests without stopping anything
    Pause { name: String },
    /// Release held requests
    Resume { name: String },
    /// Forget failures and try again now
    Reset { name: String },
    /// The app's output
    Logs(TailArgs),
    /// Roll out a release: a WAR or JAR, else a directory; the old one serves until the new one has settled
    Deploy {
        name: String,
        path: PathBuf,
        #[arg(long, value_parser = ["halt", "rollback"])]
        on_failure: Option<String>,
    },
    /// Go back to the release before
    Rollback { name: String },
    /// (not available in this version)
    Maintenance(Later),
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    pub(crate) name: String,
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
    pub(crate) lines: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OpCommand {
    List,
    /// Follow an operation to its end
    Watch {
        id: String,
    },
    Cancel {
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UpstreamCommand {
    List,
    /// Send no new requests to an endpoint
    Drain {
        name: String,
        address: String,
    },
    Undrain {
        name: String,
        address: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    List,
    /// One certificate, by its name or a host
    Show {
        name: String,
    },
    /// Make this machine trust the local CA
    Trust {
        /// Only print the root, for other machines and for browsers with a store of their own
        #[arg(long)]
        print: bool,
    },
    /// Have a certificate made for these hosts; it renews itself until it is removed
    Request(CertRequest),
    /// Renew what is due, or whatever is named with --force
    Renew {
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<String>,
        #[arg(long)]
        all: bool,
        /// Although it is not due, and whatever the back-off says
        #[arg(long)]
        force: bool,
    },
    /// Make a certificate worthless for ever
    Revoke {
        name: String,
        /// Although it is in use
        #[arg(long)]
        force: bool,
    },
    /// Show a certificate that was made elsewhere, and has to be renewed there
    Import {
        /// Certificate chain in PEM, the server's own first
        #[arg(long)]
        cert: PathBuf,
        /// Its private key in PEM
        #[arg(long)]
        key: PathBuf,
        #[arg(long)]
        name: Option<String>,
    },
    /// Neither show nor renew it any more
    Remove {
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogsCommand {
    List,
    /// Rotate one log, or all
    Rotate {
        #[arg(conflicts_with = "all")]
        name: Option<String>,
        #[arg(long)]
        all: bool,
    },
    Tail {
        #[arg(default_value = "access")]
        name: String,
        #[arg(short, long)]
        follow: bool,
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
        lines: u32,
    },
    /// A report from an access log; no daemon needed
    Report {
        /// Plain or gzip; `-` is standard input
        #[arg(default_value = "-", value_name = "FILE")]
        files: Vec<PathBuf>,
        #[arg(long, value_enum, default_value = "daily")]
        report: Period,
    },
    /// A live view of an access log; no daemon needed
    Top {
        #[arg(default_value = "-")]
        file: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// `30`, `30s`, `500ms`, `5m`, `2h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a duration looks like 30, 30s, 5m or 2h".to_owned())?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("unknown unit `{unit}`: use ms, s, m, h or d")),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_line_of_the_interface_parses() {
        let lines = [
            "status --check --watch",
            "reload --dry-run -c f --allow-failing-apps",
            "config check f",
            "config show",
            "config diff a b",
            "config schema",
            "app list",
            "app status a",
            "app start a b",
            "app stop --all --now",
            "app restart a --hard --instance 1 --on-failure halt",
            "app scale a 3",
            "app pause a",
            "app resume a",
            "app reset a",
            "app logs a -f -n 5",
            "app deploy a p",
            "app maintenance a on --message x",
            "op list",
            "op watch 1",
            "op cancel 1",
            "upstream drain a b",
            "logs rotate --all",
            "logs tail -f",
            "logs top -",
            "logs report - --report hourly",
            "events -f --since 5m",
            "cert request --force a",
            "cert renew --all",
            "cert revoke a --force",
            "cert remove a",
            "cert list",
            "cert show a",
            "cert trust --print",
            "cert import --cert f --key f",
            "cloudflare check",
            "cloudflare check a",
            "cloudflare ips --refresh",
            "cloudflare purge https://a/b https://a/c",
            "cloudflare purge --tag t --zone a",
            "cloudflare purge --all",
            "explain u -H k:v",
            "upgrade --binary p",
            "shutdown",
            "completions zsh",
            "man d",
            "-o json --timeout 5s --no-wait -q status",
        ];
        for line in lines {
            let words = std::iter::once("miwictl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn durations_have_units() {
        let cases = [("30", 30_000), ("500ms", 500), ("5m", 300_000)];
        for (text, millis) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        assert!(duration("5 parsecs").is_err());
        assert!(duration("").is_err());
    }
}
