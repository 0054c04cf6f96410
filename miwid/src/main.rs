//! `miwid`: the daemon's process. Everything it does is in the library; this picks the role and gives the exit code.

use std::process::ExitCode;

use clap::Parser;
use miwid::{
    app,
    cli::{Cli, Command},
    daemon,
};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // The launch stub is this binary under another name: it becomes the app, or says which step failed.
    if std::env::args_os().next().is_some_and(|it| it == app::stub::NAME) {
        app::stub::main();
    }
    let Cli { command, run } = Cli::parse();
    match command {
        None => daemon::run(&run),
        Some(Command::Run(run)) => daemon::run(&run),
        Some(Command::Check(check)) => daemon::check(&check),
        Some(Command::DemoApp) => daemon::demo_app(),
    }
}
