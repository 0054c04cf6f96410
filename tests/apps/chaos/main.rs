//! An app that misbehaves on demand, for the tests of the supervisor.
//!
//! Without flags it is the naive app everybody writes: no handler for SIGTERM, so the signal kills it in the middle of
//! whatever it does. That is on purpose; draining first is miwid's work.

mod mischief;
mod options;
mod routes;

use std::{env, future::pending, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use tokio::time::sleep;

use crate::{mischief::Listening, options::Options, routes::App};

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(role) = options.role {
        return mischief::play(role, &options);
    }
    mischief::append(options.pid_file.as_deref(), &std::process::id().to_string());
    if options.fail_if_exists.as_deref().is_some_and(std::path::Path::exists) {
        eprintln!("chaos-app: told to fail");
        return ExitCode::from(options.exit_code.unwrap_or(1));
    }
    if options.exit_code.is_some() && options.exit_after.is_none() {
        eprintln!("chaos-app: leaving at once");
        return ExitCode::from(options.exit_code.unwrap_or(0));
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_or(ExitCode::FAILURE, |runtime| runtime.block_on(run(options)))
}

async fn run(options: Options) -> ExitCode {
    // Handlers come first: a signal during a slow start is part of the tests.
    mischief::heed_signals(&options);
    mischief::make_noise(&options);
    if let Some(after) = options.exit_after {
        let code = i32::from(options.exit_code.unwrap_or(0));
        tokio::spawn(async move {
            sleep(Duration::from_millis(after)).await;
            std::process::exit(code);
        });
    }
    sleep(Duration::from_millis(options.ready_after)).await;
    if options.no_listen {
        println!("chaos-app: alive, but not listening");
        return pending().await;
    }
    let place = options.place(|name| env::var(name).ok());
    let listening = match Listening::open(&place).await {
        Ok(listening) => listening,
        Err(error) => {
            eprintln!("chaos-app: cannot listen on {place}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("chaos-app: listening on {place} as pid {}", std::process::id());
    eprintln!("chaos-app: this is standard error");
    if options.daemonize {
        return mischief::leave_a_child(&listening, &place);
    }
    if options.fork_holder {
        mischief::leave_a_holder(&listening);
    }
    let app = Arc::new(App::new(options));
    loop {
        if let Ok(stream) = listening.accept().await {
            tokio::spawn(routes::serve_connection(stream, app.clone()));
        }
    }
}
