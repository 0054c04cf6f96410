//! What is followed outlasts the engine that sends it, through an upgrade as through a crash: the warden keeps the control socket,
//! and who connects to it waits there until the next engine answers.

use std::{error::Error as _, time::Duration};

use tonic::{Code, Status, Streaming};

use super::connect;
use crate::{
    cli::Globals,
    client::{self, Client},
    error::{Error, Result},
    output,
};

/// Between two attempts while engines come and go.
const BETWEEN: Duration = Duration::from_millis(250);

/// A stream, or why there is none.
pub(super) type Begun<T> = std::result::Result<Streaming<T>, Status>;

/// Which engine a stream is asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    First,
    /// Everything it has to say is news.
    Next,
}

/// Shows what `begin` brings until it ends or the user has enough; what the next engine sends, too.
pub(super) async fn follow<T>(
    globals: &Globals,
    begin: impl AsyncFn(&Client, Engine) -> Begun<T>,
    unknown: impl Fn(Status) -> Error,
    show: impl Fn(&T),
) -> Result {
    tokio::select! {
        ended = followed(globals, begin, unknown, show) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn followed<T>(
    globals: &Globals,
    begin: impl AsyncFn(&Client, Engine) -> Begun<T>,
    unknown: impl Fn(Status) -> Error,
    show: impl Fn(&T),
) -> Result {
    let mut stream = begin(&connect(globals).await?, Engine::First).await.map_err(&unknown)?;
    loop {
        match stream.message().await {
            Ok(Some(message)) => show(&message),
            Ok(None) => return Ok(()),
            Err(gone) if went_away(&gone) => stream = of_the_next(globals, &begin, &unknown, gone).await?,
            Err(status) => return Err(status.into()),
        }
    }
}

/// `gone` is the error when no other engine comes.
async fn of_the_next<T>(
    globals: &Globals,
    begin: impl AsyncFn(&Client, Engine) -> Begun<T>,
    unknown: impl Fn(Status) -> Error,
    gone: Status,
) -> Result<Streaming<T>> {
    while !client::is_deserted(globals.socket.as_deref()) {
        if let Ok(client) = connect(globals).await {
            match begin(&client, Engine::Next).await {
                Ok(stream) => {
                    output::talk(globals, "(another engine goes on)");
                    return Ok(stream);
                }
                Err(status) if went_away(&status) => {}
                Err(status) => return Err(unknown(status)),
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Err(gone.into())
}

/// It says so, or its connection has broken off.
pub(super) fn went_away(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}
