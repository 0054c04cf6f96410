//! `miwictl cert`: which certificates are shown, and trusting the local CA on this machine.

use std::{fs, io, path::Path, process::Command};

use proto::v1::{Certificate, ListCertificatesRequest, RootRequest};
use serde::Serialize;

use super::{cert_change, connect};
use crate::{
    cli::{CertCommand, Globals},
    error::{DENIED, Error, FAILED, NOT_FOUND, Result},
    output,
};

/// Where Debian and its kin look for authorities of the machine's owner.
const STORE: &str = "/usr/local/share/ca-certificates";
const UPDATE: &str = "update-ca-certificates";

pub(super) async fn run(globals: &Globals, command: &CertCommand) -> Result {
    match command {
        CertCommand::List => {
            let reply = certificates(globals).await?;
            output::document(globals, &List { certificates: reply }, |it| table(&it.certificates));
            Ok(())
        }
        CertCommand::Show { name } => show(globals, name).await,
        CertCommand::Trust { print } => trust(globals, *print).await,
        change => cert_change::run(globals, change).await,
    }
}

#[derive(Serialize)]
struct List {
    certificates: Vec<Certificate>,
}

pub(super) async fn certificates(globals: &Globals) -> Result<Vec<Certificate>> {
    let mut client = connect(globals).await?.certificates();
    Ok(client.list(ListCertificatesRequest {}).await?.into_inner().certificates)
}

async fn show(globals: &Globals, name: &str) -> Result {
    let all = certificates(globals).await?;
    output::document(globals, known(&all, name)?, lines);
    Ok(())
}

/// By its name, or by a host that it is for.
pub(super) fn known<'a>(all: &'a [Certificate], name: &str) -> Result<&'a Certificate> {
    let named = all.iter().find(|it| it.name == name);
    if let Some(found) = named.or_else(|| all.iter().find(|it| it.hosts.iter().any(|host| host == name))) {
        return Ok(found);
    }
    let distance = |it: &&Certificate| strsim::damerau_levenshtein(&it.name, name);
    let nearest = all.iter().min_by_key(distance).filter(|it| distance(it) <= 3);
    let hint = nearest.map_or_else(
        || "`miwictl cert list` shows what there is".to_owned(),
        |it| format!("did you mean `{}`?", it.name),
    );
    Err(Error::new(NOT_FOUND, "not-found", format!("there is no certificate `{name}`")).hint(hint))
}

fn table(certificates: &[Certificate]) -> String {
    let rows = certificates.iter().map(|it| {
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let renewal = dash(it.next_renewal.as_deref().unwrap_or_default());
        [it.name.clone(), it.state.clone(), it.hosts.join(", "), it.issuer.clone(), dash(&it.not_after), renewal]
    });
    output::table(["NAME", "STATE", "HOSTS", "ISSUER", "NOT AFTER", "RENEWAL"], rows)
}

fn lines(certificate: &Certificate) -> String {
    let Certificate { name, hosts, issuer, not_before, not_after, serial, sha256, next_renewal, state, .. } =
        certificate;
    let renewal = next_renewal.as_deref().unwrap_or("by whoever writes the file");
    let error = certificate.last_error.as_deref().unwrap_or("none");
    [
        ("name", name.as_str()),
        ("state", state),
        ("hosts", &hosts.join(", ")),
        ("issuer", issuer),
        ("not before", not_before),
        ("not after", not_after),
        ("renewal", renewal),
        ("serial", serial),
        ("sha256", sha256),
        ("wanted by", &certificate.origin),
        ("last error", error),
    ]
    .map(|(what, value)| format!("{what:<12}{value}"))
    .join("\n")
}

#[derive(Serialize)]
struct Trusted {
    installed: String,
    store: &'static str,
}

async fn trust(globals: &Globals, only_print: bool) -> Result {
    let root = connect(globals).await?.certificates().root(RootRequest {}).await?.into_inner();
    if only_print {
        output::document(globals, &root, |it| it.pem.trim_end().to_owned());
        return Ok(());
    }
    let installed = install(Path::new(STORE), &root.pem)?;
    let trusted = Trusted { installed, store: "system" };
    output::document(globals, &trusted, |it| {
        format!(
            "wrote {} and ran {UPDATE}\nBrowsers with a store of their own need the root too: miwictl cert trust --print",
            it.installed
        )
    });
    Ok(())
}

fn install(store: &Path, pem: &str) -> Result<String> {
    let path = store.join("miwid-local-ca.crt");
    let written = fs::create_dir_all(store).and_then(|()| fs::write(&path, pem));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::new(DENIED, "permission-denied", format!("{} cannot be written", path.display()))
                .hint("run `sudo miwictl cert trust`, or print the root with --print")
        }
        _ => Error::new(FAILED, "failed", format!("{} cannot be written: {error}", path.display())),
    })?;
    let hint = "import the root by hand: `miwictl cert trust --print`";
    match Command::new(UPDATE).output() {
        Ok(output) if output.status.success() => Ok(path.display().to_string()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Error::new(FAILED, "failed", format!("{UPDATE} failed: {said}")).hint(hint))
        }
        Err(error) => Err(Error::new(FAILED, "failed", format!("{UPDATE} cannot be run: {error}")).hint(hint)),
    }
}
