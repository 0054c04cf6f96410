//! `miwictl cert request|renew|revoke|import|remove`: each is an operation of the daemon that is followed to its end.

use std::{fs, path::Path};

use proto::v1::{
    ImportCertificateRequest, Operation, RemoveCertificateRequest, RenewCertificateRequest, RequestCertificateRequest,
    RevokeCertificateRequest,
};
use serde_json::json;

use super::{
    cert::{certificates, known},
    connect, request_id,
};
use crate::{
    cli::{CertCommand, CertRequest, Globals},
    client::Client,
    error::{Error, FAILED, INTERRUPTED, PARTLY, Result},
    follow::{follow, verdict},
    output,
};

pub(super) async fn run(globals: &Globals, command: &CertCommand) -> Result {
    let client = connect(globals).await?;
    let id = request_id(globals);
    let begun = match command {
        CertCommand::Request(args) => client.certificates().request(request(args, id)).await,
        CertCommand::Renew { name, force, .. } => return renew(globals, &client, name.as_deref(), *force, &id).await,
        CertCommand::Revoke { name, force } => {
            let (name, force) = (named(globals, name).await?, *force);
            client.certificates().revoke(RevokeCertificateRequest { request_id: id, name, force }).await
        }
        CertCommand::Import { cert, key, name } => {
            let (certificate_pem, key_pem) = (read(cert)?, read(key)?);
            let import = ImportCertificateRequest { request_id: id, name: name.clone(), certificate_pem, key_pem };
            client.certificates().import(import).await
        }
        CertCommand::Remove { name } => {
            let name = named(globals, name).await?;
            client.certificates().remove(RemoveCertificateRequest { request_id: id, name }).await
        }
        _ => return Err(Error::unexpected("this command changes nothing")),
    };
    let ended = ended(globals, &client, begun?.into_inner()).await?;
    told(globals, &[ended]);
    Ok(())
}

fn request(args: &CertRequest, request_id: String) -> RequestCertificateRequest {
    RequestCertificateRequest {
        request_id,
        hosts: args.hosts.clone(),
        name: args.name.clone(),
        issuer: args.issuer.clone(),
        validity_days: args.validity,
        force: args.force,
        dry_run: args.dry_run,
    }
}

/// One after another; of several, one that fails does not take the others along.
async fn renew(globals: &Globals, client: &Client, name: Option<&str>, force: bool, id: &str) -> Result {
    let all = certificates(globals).await?;
    let names: Vec<String> = match name {
        Some(name) => vec![known(&all, name)?.name.clone()],
        None => all
            .iter()
            .filter(|it| it.next_renewal.is_some() && it.issuer != "local")
            .map(|it| it.name.clone())
            .collect(),
    };
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for (position, name) in names.iter().enumerate() {
        let request_id = if position == 0 { id.to_owned() } else { format!("{id}-{position}") };
        let renewal = RenewCertificateRequest { request_id, name: name.clone(), force };
        let begun = client.certificates().renew(renewal).await?.into_inner();
        match ended(globals, client, begun).await {
            Ok(operation) => done.push(operation),
            Err(error) if error.exit == INTERRUPTED || names.len() == 1 => return Err(error),
            Err(error) => errors.push((name, error)),
        }
    }
    if !done.is_empty() || errors.is_empty() {
        told(globals, &done);
    }
    if errors.is_empty() {
        return Ok(());
    }
    let exit = if done.is_empty() { FAILED } else { PARTLY };
    let message = format!("{} of {} certificates could not be renewed", errors.len(), names.len());
    let last_lines = errors.iter().map(|(name, error)| format!("{name}: {}", error.message)).collect();
    let error = Error { last_lines, ..Error::new(exit, "partly-done", message) };
    Err(if done.is_empty() { error } else { error.answered() })
}

async fn ended(globals: &Globals, client: &Client, begun: Operation) -> Result<Operation> {
    let ended = follow(client, globals, begun).await?;
    verdict(&ended)?;
    Ok(ended)
}

fn told(globals: &Globals, operations: &[Operation]) {
    output::document(globals, &json!({ "operations": operations }), |_| {
        let line = |it: &Operation| match globals.no_wait {
            true => it.id.clone(),
            false => format!("{}: {}", it.target, it.result),
        };
        operations.iter().map(line).collect::<Vec<_>>().join("\n")
    });
}

/// The name of the certificate that is meant, which may be given by a host.
async fn named(globals: &Globals, name: &str) -> Result<String> {
    Ok(known(&certificates(globals).await?, name)?.name.clone())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| {
        Error::new(FAILED, "failed", format!("cannot read {}: {error}", path.display())).hint("both files are PEM text")
    })
}
