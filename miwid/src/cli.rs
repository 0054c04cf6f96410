//! The command line of the daemon: few flags, because the configuration file says the rest.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  miwid                                    the built-in default: a welcome page and a demo app on port 8080
  miwid -c /etc/miwid/miwid.toml           serve in the foreground
  miwid --set server.http_port=9000        one key without editing the file
  miwid check -c miwid.toml                print every problem; exit 0 or 6

Configuration is looked for in: -c, $MIWID_CONFIG, ./miwid.toml, ./config.toml, /etc/miwid/miwid.toml.
Signals: TERM and INT stop (the second time at once), HUP reloads, USR1 reopens logs, USR2 upgrades to the program that
now lies where this one was started from.
Exit codes: 0 stopped as asked, 1 unexpected, 2 usage, 6 configuration invalid, 8 a listener could not be bound or
another daemon runs.";

#[derive(Debug, Parser)]
#[command(name = "miwid", version, about = "A web server that also runs your apps", after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: Run,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve in the foreground; log to standard error until configured otherwise
    Run(Run),
    /// Validate the configuration: text, disk, users and ports; print every problem
    Check(Check),
    /// What this program is, for the one that it is to replace
    #[command(hide = true)]
    Handshake,
    /// The app that the built-in default supervises
    #[command(hide = true)]
    DemoApp,
}

#[derive(Clone, Debug, Default, Args)]
pub struct Run {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", env = "MIWID_CONFIG")]
    pub config: Option<PathBuf>,
    /// Control socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Override one key; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Without a warden: apps end with this process, and there are no upgrades
    #[arg(long)]
    pub single_process: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Check {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", env = "MIWID_CONFIG")]
    pub config: Option<PathBuf>,
    /// Warnings fail too
    #[arg(long)]
    pub strict: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, for example server.http_port=9000")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_command() {
        let cli = Cli::parse_from(["miwid", "-c", "a.toml", "--set", "server.http_port=1"]);
        assert!(cli.command.is_none());
        assert_eq!(cli.run.config, Some("a.toml".into()));
        assert_eq!(cli.run.set, [("server.http_port".to_owned(), "1".to_owned())]);
    }
}
