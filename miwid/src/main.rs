//! `miwid`: the daemon's process. Everything it does is in the library; this picks the role and gives the exit code.

use std::process::ExitCode;

use clap::Parser;
use miwid::{
    app,
    cli::{Cli, Command, Run},
    daemon, link, warden,
};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // The launch stub is this binary under another name: it becomes the app, or says which step failed.
    if std::env::args_os().next().is_some_and(|it| it == app::stub::NAME) {
        app::stub::main();
    }
    let role = std::env::args_os().next();
    if role.as_ref().is_some_and(|it| it == link::WARDEN) {
        return warden::resume(std::env::args_os().skip(1).collect());
    }
    let is_engine = role.is_some_and(|it| it == link::ENGINE);
    let Cli { command, run } = Cli::parse();
    match command {
        None => serve(&run, is_engine),
        Some(Command::Run(run)) => serve(&run, is_engine),
        Some(Command::Handshake) => daemon::handshake(),
        Some(Command::Check(check)) => daemon::check(&check),
        Some(Command::DemoApp) => daemon::demo_app(),
    }
}

/// In two processes, unless told otherwise: a warden, which was started by hand or by systemd, and its engine.
fn serve(run: &Run, is_engine: bool) -> ExitCode {
    daemon::forbid_cores();
    match () {
        () if is_engine => daemon::run_engine(run),
        () if run.single_process => daemon::run(run),
        () => match daemon::identity(run) {
            Ok(identity) => warden::run(std::env::args_os().skip(1).collect(), identity),
            Err(code) => code,
        },
    }
}
