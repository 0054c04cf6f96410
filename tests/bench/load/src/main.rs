//! The load of the benchmark that no packaged tool gives. It never retries: what goes wrong is counted and told.
//!
//! Every mode prints one line of JSON with `requests`, `failed` and `seconds`; everything stays on one thread, so that
//! the load needs the one core that it is given.

mod connect;
mod echo;
mod hold;
mod latency;
mod open;
mod quic;
mod result;
mod tls;

use std::{io, net::SocketAddr, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about)]
struct Options {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// HTTP/1.1 at a constant rate; a request that has to wait for a connection is late, and its wait counts.
    Open(open::Options),
    /// One connection for every request, without TLS, with full or with resumed handshakes.
    Connect(connect::Options),
    /// HTTP/3: connections with so many requests under way on each.
    H3(quic::Options),
    /// Connections that stay open: reads how many from standard input, and keeps them until that ends.
    Hold(hold::Options),
    /// An upstream that echoes WebSockets and answers anything else shortly.
    Echo(echo::Options),
}

/// Where a load goes and how long it lasts.
#[derive(Clone, clap::Args)]
struct Aim {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long, default_value = "/")]
    path: String,
    #[arg(long)]
    seconds: f64,
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

fn main() -> ExitCode {
    let done = match Options::parse().mode {
        Mode::Open(options) => open::run(&options),
        Mode::Connect(options) => on_one_thread(connect::run(options)),
        Mode::H3(options) => on_one_thread(quic::run(options)),
        Mode::Hold(options) => on_one_thread(hold::run(options)),
        Mode::Echo(options) => on_one_thread(echo::run(options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn on_one_thread(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
