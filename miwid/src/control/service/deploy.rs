//! A release on its way in: the client's stream becomes pieces for the disk. The client reads its files with its own
//! rights, so nobody gets at a file through the daemon.

use std::time::Duration;

use proto::v1::{DeployEntry, DeployHead, DeployRequest, deploy_request};
use tonic::{Status, Streaming};

use crate::app::{Form, Handle, Part, Refusal, Upload};

/// A client that says nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(60);

pub(super) struct Received {
    pub(super) head: DeployHead,
    pub(super) release: String,
}

/// What is to come, and for which app.
pub(super) async fn head(stream: &mut Streaming<DeployRequest>) -> Result<DeployHead, Status> {
    match next(stream).await? {
        Some(deploy_request::Part::Head(head)) => Ok(head),
        _ => Err(Status::invalid_argument("a deploy begins with its head")),
    }
}

pub(super) async fn receive(
    app: &Handle,
    head: DeployHead,
    mut stream: Streaming<DeployRequest>,
) -> Result<Received, Status> {
    let (form, upload) = app.upload(&head.name).map_err(|refusal| match refusal {
        Refusal::NotFound { name, .. } => Status::not_found(format!("there is no app `{name}`")),
        _ => Status::internal("the release cannot be received"),
    })?;
    match (form, head.directory) {
        (Form::File(_), true) => {
            return Err(Status::invalid_argument(format!("a release of `{}` is one file, not a directory", head.name)));
        }
        (Form::Directory, false) => {
            return Err(Status::invalid_argument(format!("a release of `{}` is a directory, not one file", head.name)));
        }
        _ => {}
    }
    let Upload { parts, done } = upload;
    let fed = feed(&mut stream, &parts).await;
    // The end of its queue lets an upload that is not whole end, too.
    drop(parts);
    let stored = done.await.map_err(|_| Status::internal("the release was not stored"))?;
    fed?;
    let release = stored.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::AlreadyExists => {
            Status::invalid_argument(error.to_string())
        }
        _ => Status::resource_exhausted(format!("the release cannot be stored: {error}")),
    })?;
    Ok(Received { head, release })
}

async fn next(stream: &mut Streaming<DeployRequest>) -> Result<Option<deploy_request::Part>, Status> {
    let message = tokio::time::timeout(SILENCE, stream.message()).await;
    let message = message.map_err(|_| Status::deadline_exceeded("nothing came for a minute"))??;
    Ok(message.and_then(|message| message.part))
}

/// Until the end, or until the disk wants no more: then its own error says why.
async fn feed(stream: &mut Streaming<DeployRequest>, parts: &tokio::sync::mpsc::Sender<Part>) -> Result<(), Status> {
    loop {
        let part = match next(stream).await? {
            Some(deploy_request::Part::Entry(entry)) => entry_part(entry),
            Some(deploy_request::Part::Data(data)) => Part::Data(data.into()),
            Some(deploy_request::Part::End(_)) => Part::End,
            Some(deploy_request::Part::Head(_)) | None => {
                return Err(Status::invalid_argument("the upload ended without its end"));
            }
        };
        let is_end = matches!(part, Part::End);
        if parts.send(part).await.is_err() || is_end {
            return Ok(());
        }
    }
}

fn entry_part(entry: DeployEntry) -> Part {
    let DeployEntry { path, directory, executable, link } = entry;
    match (link, directory) {
        (Some(target), _) => Part::Link { path, target },
        (None, true) => Part::Directory(path),
        (None, false) => Part::File { path, executable },
    }
}
