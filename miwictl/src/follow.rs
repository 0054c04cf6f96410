//! Follows an operation to its end. The operation belongs to the daemon: a client that is interrupted or out of patience
//! leaves it running and says how to come back.

use std::{future::pending, time::Duration};

use proto::v1::{Operation, WatchOperationRequest};

use crate::{
    cli::Globals,
    client::Client,
    error::{CONFLICT, Error, INTERRUPTED, Result, TIMEOUT},
    output,
};

/// The operation as it ended, with or without success; as it is, when nobody wants to wait.
pub(crate) async fn follow(client: &Client, globals: &Globals, begun: Operation) -> Result<Operation> {
    if globals.no_wait {
        return Ok(begun);
    }
    let id = begun.id.clone();
    tokio::select! {
        ended = to_the_end(client, globals, &id) => ended,
        () = patience(globals.timeout) => Err(left(TIMEOUT, "timeout", &id)),
        _ = tokio::signal::ctrl_c() => Err(left(INTERRUPTED, "interrupted", &id)),
    }
}

async fn to_the_end(client: &Client, globals: &Globals, id: &str) -> Result<Operation> {
    let request = WatchOperationRequest { id: id.to_owned() };
    let mut states = client.operations().watch(request).await?.into_inner();
    let mut shown = 0;
    let mut last = None;
    while let Some(state) = states.message().await? {
        for step in state.steps.iter().skip(shown) {
            output::talk(globals, &format!("{}: {step}", state.target));
        }
        shown = shown.max(state.steps.len());
        last = Some(state);
    }
    last.filter(|state| state.ended.is_some())
        .ok_or_else(|| Error::unexpected("the daemon stopped telling how the operation goes"))
}

async fn patience(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => pending().await,
    }
}

fn left(exit: u8, code: &str, id: &str) -> Error {
    Error::new(exit, code, format!("still running: miwictl op watch {id}"))
}

/// The error that an ended operation stands for.
pub(crate) fn verdict(operation: &Operation) -> Result {
    match (operation.state.as_str(), &operation.error) {
        (_, Some(error)) => Err(error.clone().into()),
        ("cancelled", None) => Err(Error::new(CONFLICT, "cancelled", "the operation was cancelled")),
        _ => Ok(()),
    }
}
