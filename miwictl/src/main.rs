//! miwictl: looks at a running miwid and steers it. Standard output is data, standard error is talk; the exit code says
//! how it went.

mod cli;
mod client;
mod commands;
mod error;
mod follow;
mod output;
mod report;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    output::choose_color(cli.globals.color);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(&cli)),
        Err(error) => Err(error::Error::unexpected(format!("no runtime could be started: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::failure(&cli.globals, &error);
            ExitCode::from(error.exit)
        }
    }
}
