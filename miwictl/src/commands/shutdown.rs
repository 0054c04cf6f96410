//! `miwictl shutdown`: asks the daemon to drain and stop, and waits until it no longer answers.

use std::{future::pending, time::Duration};

use proto::v1::{ShutdownRequest, VersionRequest};

use super::connect;
use crate::{
    cli::Globals,
    client::Client,
    error::{Error, INTERRUPTED, Result, TIMEOUT},
    output,
};

pub(super) async fn run(globals: &Globals) -> Result {
    let client = connect(globals).await?;
    let reply = client.daemon().shutdown(ShutdownRequest {}).await?.into_inner();
    if !globals.no_wait {
        output::talk(globals, &format!("miwid (pid {}) is draining", reply.pid));
        tokio::select! {
            () = gone(&client) => {}
            () = patience(globals.timeout) => return Err(Error::new(TIMEOUT, "timeout", "miwid is still draining")),
            _ = tokio::signal::ctrl_c() => {
                return Err(Error::new(INTERRUPTED, "interrupted", "miwid goes on draining"));
            }
        }
    }
    output::document(globals, &reply, |reply| format!("miwid (pid {}) was asked to stop", reply.pid));
    Ok(())
}

async fn gone(client: &Client) {
    while client.daemon().version(VersionRequest {}).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn patience(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => pending().await,
    }
}
