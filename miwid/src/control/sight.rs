//! This server as Cloudflare's doctor sees it, and what operators ask of Cloudflare.

use std::{collections::BTreeSet, net::IpAddr, time::SystemTime};

use config::{Config, Issuer, Ssl};
use proto::v1;

use super::{convert, plane::Plane};
use crate::{
    cloudflare::{Api, Class, Error, Here, Purge, Severity, Shown, Site, examine},
    server::Kind,
    server::addresses,
    tls::{Issued, Terminator},
};

/// Each costs two questions, at ten in a second.
const HOSTS_MAX: usize = 50;

pub(super) async fn check(plane: &Plane, hosts: Vec<String>) -> v1::CheckCloudflareReply {
    let config = plane.control.reloader.config();
    let snapshot = plane.control.current.load();
    let hosts = if hosts.is_empty() { public_hosts(&config) } else { hosts };
    let hosts: Vec<String> = hosts.into_iter().take(HOSTS_MAX).collect();
    let here = here(&config, snapshot.tls.as_deref(), &hosts);
    let findings = examine(Api::of(&config.cloudflare).map(Api::brisk).as_ref(), &here, SystemTime::now()).await;
    let count = |severity| u32::try_from(findings.iter().filter(|it| it.severity == severity).count());
    v1::CheckCloudflareReply {
        errors: count(Severity::Error).unwrap_or(u32::MAX),
        warnings: count(Severity::Warning).unwrap_or(u32::MAX),
        findings: findings
            .into_iter()
            .map(|it| v1::Finding {
                severity: it.severity.word().to_owned(),
                code: it.code.to_owned(),
                subject: it.subject,
                message: it.message,
                hint: it.hint,
                visitors: it.visitors.to_owned(),
            })
            .collect(),
        hosts,
        error: None,
    }
}

/// Hosts that can be in a zone.
fn public_hosts(config: &Config) -> Vec<String> {
    let named = config.backends.values().flat_map(|it| std::iter::once(&it.host).chain(&it.aliases));
    let all: BTreeSet<&String> = named.chain(&config.ssl.domains).filter(|it| is_public(it)).collect();
    all.into_iter().cloned().collect()
}

fn is_public(host: &str) -> bool {
    let is_local = host.rsplit('.').next().is_some_and(|it| matches!(it, "localhost" | "local" | "internal" | "test"));
    host.contains('.') && !is_local && host.parse::<IpAddr>().is_err()
}

fn here(config: &Config, terminator: Option<&Terminator>, hosts: &[String]) -> Here {
    let site = |host: &String| Site {
        host: host.clone(),
        shown: terminator.and_then(|it| it.shown(host)).map(|(it, covers)| Shown {
            not_after: it.not_after,
            covers,
            is_local: it.issued == Issued::Local,
        }),
    };
    let bound = addresses(config);
    let port = |kind| bound.iter().find(|it| it.kind == kind).map(|it| it.address.port());
    let tables = || std::iter::once(&config.ssl).chain(config.backends.values().filter_map(|it| it.ssl.as_ref()));
    let asks = |ssl: &Ssl| ssl.auto_cert && matches!(ssl.issuer, Issuer::Auto | Issuer::CloudflareOrigin);
    let acme = config.acme.as_ref().and_then(|it| it.challenge.as_deref());
    Here {
        sites: hosts.iter().map(site).collect(),
        trust: config.cloudflare.trust,
        origin_pulls: config.cloudflare.origin_pulls,
        asks_origin_ca: tables().any(asks),
        by_tls_alpn: acme == Some("tls-alpn-01"),
        http_port: port(Kind::Http),
        https_port: port(Kind::Https),
        request_timeout: config.server.request_timeout,
        keepalive_timeout: config.server.keepalive_timeout,
        header_bytes_max: usize::try_from(config.server.limits.max_header_size.bytes()).unwrap_or(usize::MAX),
    }
}

pub(super) async fn ips(plane: &Plane, refresh: bool) -> v1::CloudflareIpsReply {
    let config = plane.control.reloader.config();
    let keeper = &plane.control.edge;
    let asked = match refresh {
        true => keeper.refresh(config.cloudflare.api_base.as_deref(), SystemTime::now()).await,
        false => Ok(()),
    };
    let standing = keeper.standing();
    v1::CloudflareIpsReply {
        ranges: standing.ranges,
        heard: standing.heard.map(convert::time),
        last_error: standing.last_error,
        trust: config.cloudflare.trust,
        only: config.cloudflare.only,
        error: asked.err().map(failed),
    }
}

pub(super) async fn purge(plane: &Plane, ask: &v1::PurgeCloudflareRequest) -> v1::PurgeCloudflareReply {
    match purged(plane, ask).await {
        Ok(purged) => v1::PurgeCloudflareReply { purged, error: None },
        Err(error) => v1::PurgeCloudflareReply { purged: 0, error: Some(error) },
    }
}

async fn purged(plane: &Plane, ask: &v1::PurgeCloudflareRequest) -> Result<u32, v1::OperationError> {
    let (config, now) = (plane.control.reloader.config(), SystemTime::now());
    let api = Api::of(&config.cloudflare).map(Api::brisk).ok_or_else(|| {
        refusal("config", "there is no API token to ask Cloudflare with", "give `[cloudflare] api_token`")
    })?;
    let wanted: Vec<Purge> = [
        ask.everything.then_some(Purge::Everything),
        some(&ask.urls).map(Purge::Urls),
        some(&ask.tags).map(Purge::Tags),
        some(&ask.prefixes).map(Purge::Prefixes),
        some(&ask.hosts).map(Purge::Hosts),
    ]
    .into_iter()
    .flatten()
    .collect();
    if wanted.is_empty() {
        return Err(refusal("usage", "nothing is named", "name addresses, or say --tag, --prefix, --host or --all"));
    }
    let zone = match wanted.iter().any(|it| matches!(it, Purge::Everything | Purge::Tags(_))) {
        true => zone(&config, &api, ask.zone.as_deref(), now).await?,
        false => String::new(),
    };
    let mut count = 0;
    for purge in &wanted {
        count += api.purge(purge, &zone, now).await.map_err(failed)?;
    }
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A host in the one zone that can be meant.
async fn zone(config: &Config, api: &Api, named: Option<&str>, now: SystemTime) -> Result<String, v1::OperationError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let hosts = public_hosts(config);
    if config.cloudflare.zone_id.is_some() {
        return Ok(hosts.into_iter().next().unwrap_or_default());
    }
    let mut zones = BTreeSet::new();
    for host in &hosts {
        zones.insert(api.zone(host, now).await.map_err(failed)?);
    }
    match (hosts.into_iter().next(), zones.len()) {
        (Some(host), 1) => Ok(host),
        _ => Err(refusal("usage", "it is not clear which zone is meant", "name a host in it with --zone")),
    }
}

fn some(items: &[String]) -> Option<Vec<String>> {
    (!items.is_empty()).then(|| items.to_vec())
}

/// For the audit log.
pub(super) fn named(ask: &v1::PurgeCloudflareRequest) -> String {
    if ask.everything {
        return "everything".to_owned();
    }
    let items: Vec<&str> =
        [&ask.urls, &ask.tags, &ask.prefixes, &ask.hosts].into_iter().flatten().map(String::as_str).collect();
    items.join(" ")
}

fn refusal(code: &str, message: &str, hint: &str) -> v1::OperationError {
    let exit = if code == "usage" { 2 } else { 6 };
    v1::OperationError {
        code: code.to_owned(),
        exit,
        message: message.to_owned(),
        hint: hint.to_owned(),
        ..Default::default()
    }
}

fn failed(error: Error) -> v1::OperationError {
    let (code, hint) = match error.class {
        Class::Auth => ("auth", "check the rights of the token"),
        Class::Config | Class::NotFound | Class::Exists => ("config", "`miwictl cloudflare check` looks closer"),
        Class::Throttled { .. } => ("throttled", "wait for the time that is said, then ask again"),
        Class::Transient | Class::Unknown => ("transient", "ask again later"),
    };
    refusal(code, &error.message, error.hint.unwrap_or(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_that_can_be_in_a_zone_are_looked_at() {
        let names = ["shop.example.com", "*.example.com", "localhost", "app.localhost", "_", "192.0.2.1", "::1", "nas"];
        let public: Vec<&str> = names.into_iter().filter(|it| is_public(it)).collect();
        assert_eq!(public, ["shop.example.com", "*.example.com"]);
    }
}
