//! One verb, one file. This one only hands out the work.

mod app;
mod cert;
mod cert_change;
mod cloudflare;
mod configuration;
mod events;
mod lasting;
mod logs;
mod op;
mod paperwork;
mod release;
mod reload;
mod shutdown;
mod status;
mod upgrade;
mod upstream;

use crate::{
    cli::{Cli, Command, Globals},
    client::Client,
    error::{Error, Result},
};

pub(crate) async fn run(cli: &Cli) -> Result {
    let globals = &cli.globals;
    match &cli.command {
        Command::Status { check, watch } => status::run(globals, *check, *watch).await,
        Command::Reload(args) => reload::run(globals, args).await,
        Command::Config(command) => configuration::run(globals, command).await,
        Command::App(command) => app::run(globals, command).await,
        Command::Op(command) => op::run(globals, command).await,
        Command::Upstream(command) => upstream::run(globals, command).await,
        Command::Cert(command) => cert::run(globals, command).await,
        Command::Logs(command) => logs::run(globals, command).await,
        Command::Events { follow, since } => events::run(globals, *follow, *since).await,
        Command::Shutdown => shutdown::run(globals).await,
        Command::Completions { shell } => paperwork::completions(*shell),
        Command::Man { dir } => paperwork::man(dir),
        Command::Cloudflare(command) => cloudflare::run(globals, command).await,
        Command::Cache(_) => Err(Error::unavailable("cache")),
        Command::Top(_) => Err(Error::unavailable("top")),
        Command::Explain(_) => Err(Error::unavailable("explain")),
        Command::Upgrade { binary } => upgrade::run(globals, binary.as_deref()).await,
    }
}

async fn connect(globals: &Globals) -> Result<Client> {
    Client::connect(globals.socket.as_deref()).await
}

/// The id that makes a repeated request the same request.
fn request_id(globals: &Globals) -> String {
    globals.request_id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
}
