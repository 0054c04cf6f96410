//! `miwictl upgrade`: another program goes on with everything; ends when it is there to stay, or when the old one serves on.

use std::path::Path;

use proto::v1::UpgradeRequest;

use super::{connect, request_id};
use crate::{
    cli::Globals,
    error::{Error, Result},
    follow::{follow, verdict},
    output,
};

pub(super) async fn run(globals: &Globals, binary: Option<&Path>) -> Result {
    let binary = binary.map(std::path::absolute).transpose().map_err(|error| Error::unexpected(error.to_string()))?;
    let binary = binary.map(|path| path.display().to_string());
    let client = connect(globals).await?;
    let begun = client.daemon().upgrade(UpgradeRequest { request_id: request_id(globals), binary }).await?.into_inner();
    let ended = follow(&client, globals, begun).await?;
    verdict(&ended)?;
    let shown = |operation: &proto::v1::Operation| {
        if globals.no_wait { operation.id.clone() } else { operation.result.clone() }
    };
    output::document(globals, &ended, shown);
    Ok(())
}
