//! `miwictl cloudflare`: what is wrong with it, which addresses are its, and what is to leave its caches.

use proto::v1::{
    CheckCloudflareReply, CheckCloudflareRequest, CloudflareIpsReply, CloudflareIpsRequest, Finding, OperationError,
    PurgeCloudflareReply, PurgeCloudflareRequest,
};

use serde::Serialize;
use serde_json::Value;

use super::connect;
use crate::{
    cli::{CloudflareCommand, Globals, PurgeArgs},
    error::{Error, FAILED, Result},
    output,
};

pub(super) async fn run(globals: &Globals, command: &CloudflareCommand) -> Result {
    let mut client = connect(globals).await?.cloudflare();
    match command {
        CloudflareCommand::Check { hosts } => {
            let reply = client.check(CheckCloudflareRequest { hosts: hosts.clone() }).await?.into_inner();
            succeeded(reply.error.as_ref())?;
            output::document(globals, &data(&reply), |_| findings(&reply));
            verdict(&reply)
        }
        CloudflareCommand::Ips { refresh } => {
            let reply = client.ips(CloudflareIpsRequest { refresh: *refresh }).await?.into_inner();
            succeeded(reply.error.as_ref())?;
            output::document(globals, &data(&reply), |_| reply.ranges.join("\n"));
            if globals.output == crate::cli::Format::Table {
                output::talk(globals, &origin(&reply));
            }
            Ok(())
        }
        CloudflareCommand::Purge(args) => {
            let reply = client.purge(purge(args)).await?.into_inner();
            succeeded(reply.error.as_ref())?;
            output::document(globals, &data(&reply), |_| purged(&reply));
            Ok(())
        }
    }
}

fn succeeded(error: Option<&OperationError>) -> Result {
    error.map_or(Ok(()), |it| Err(Error::from(it.clone())))
}

/// Only a failure has an error in it.
fn data(reply: &impl Serialize) -> Value {
    let mut data = serde_json::to_value(reply).unwrap_or_default();
    data.as_object_mut().map(|it| it.remove("error"));
    data
}

/// Errors end with 6, so that scripts can tell.
fn verdict(reply: &CheckCloudflareReply) -> Result {
    if reply.errors == 0 {
        return Ok(());
    }
    let them = if reply.errors == 1 { "thing keeps" } else { "things keep" };
    let message = format!("{} {them} visitors from being served as they should be", reply.errors);
    Err(Error::new(FAILED, "failed", message).hint("each has its own above").answered())
}

fn findings(reply: &CheckCloudflareReply) -> String {
    if reply.findings.is_empty() {
        return format!("nothing is wrong with {}", said(&reply.hosts));
    }
    let width = |of: fn(&Finding) -> &String| reply.findings.iter().map(|it| of(it).len()).max().unwrap_or_default();
    let (code, subject) = (width(|it| &it.code), width(|it| &it.subject));
    let lines = reply.findings.iter().map(|it| {
        let visitors = if it.visitors.is_empty() { String::new() } else { format!("visitors get {}", it.visitors) };
        let head = format!("{:<9}{:<code$}  {:<subject$}  {visitors}", it.severity, it.code, it.subject);
        format!("{}\n         {}\n         hint: {}", head.trim_end(), it.message, it.hint)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn said(hosts: &[String]) -> String {
    if hosts.is_empty() { "this server; it has no host that could be in a zone".to_owned() } else { hosts.join(", ") }
}

fn origin(reply: &CloudflareIpsReply) -> String {
    let heard = match &reply.heard {
        Some(at) => format!("as Cloudflare said at {at}, and as built in"),
        None => "as built in; `--refresh` asks Cloudflare".to_owned(),
    };
    let use_of = match (reply.trust, reply.only) {
        (true, true) => "they say who their clients are, and nobody else is served",
        (true, false) => "they say who their clients are",
        (false, true) => "nobody else is served",
        (false, false) => "they count for nothing: `[cloudflare] trust` and `only` are off",
    };
    let failed = reply.last_error.as_ref().map(|it| format!("\nthe last attempt failed: {it}")).unwrap_or_default();
    format!("{heard}; {use_of}{failed}")
}

fn purge(args: &PurgeArgs) -> PurgeCloudflareRequest {
    PurgeCloudflareRequest {
        everything: args.all,
        urls: args.urls.clone(),
        tags: args.tag.clone(),
        prefixes: args.prefix.clone(),
        hosts: args.host.clone(),
        zone: args.zone.clone(),
    }
}

fn purged(reply: &PurgeCloudflareReply) -> String {
    format!("purged {}", reply.purged)
}
