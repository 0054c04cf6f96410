//! What is wrong between Cloudflare and this server, what a visitor would see of it, and what to do. Pure: `look` has asked
//! Cloudflare, the control plane says how things are here.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::error::{Class, Error};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Visitors see an error, or everything is about to fail.
    Error,
    Warning,
    Advice,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Advice => "advice",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// One word for scripts.
    pub code: &'static str,
    /// The host, zone or key that it is about.
    pub subject: String,
    pub message: String,
    pub hint: String,
    /// The status that visitors get because of it; empty when they notice nothing.
    pub visitors: &'static str,
}

/// How things are on this side.
#[derive(Clone, Debug, Default)]
pub struct Here {
    pub sites: Vec<Site>,
    pub trust: bool,
    pub origin_pulls: bool,
    /// Certificates come from Origin CA.
    pub asks_origin_ca: bool,
    /// `[acme]` shows control of names by tls-alpn-01, which ends at Cloudflare.
    pub by_tls_alpn: bool,
    pub http_port: Option<u16>,
    pub https_port: Option<u16>,
    pub request_timeout: Duration,
    pub keepalive_timeout: Duration,
    pub header_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub struct Site {
    pub host: String,
    /// What a handshake for the host shows; `None` when HTTPS is off or it would be refused.
    pub shown: Option<Shown>,
}

#[derive(Clone, Debug)]
pub struct Shown {
    pub not_after: SystemTime,
    pub covers: bool,
    /// Nobody but this machine trusts it.
    pub is_local: bool,
}

/// What Cloudflare says.
pub(super) struct There {
    pub(super) token: Option<Result<Token, Error>>,
    /// By the host of the site: the identifier of its zone.
    pub(super) places: BTreeMap<String, Result<String, Error>>,
    pub(super) zones: BTreeMap<String, Zone>,
    /// By host; `None` when nobody looked.
    pub(super) records: BTreeMap<String, Result<Vec<bool>, Error>>,
}

pub(super) struct Token {
    pub(super) status: String,
    pub(super) ends: Option<SystemTime>,
}

#[derive(Default)]
pub(super) struct Zone {
    pub(super) name: String,
    pub(super) status: String,
    pub(super) is_paused: bool,
    /// By name, as far as the token may read them.
    pub(super) settings: BTreeMap<&'static str, String>,
    /// Whether its certificates can be listed, where that matters.
    pub(super) certificates: Option<Error>,
    /// Why nothing more is known of it.
    pub(super) unreadable: Option<Error>,
}

/// Ports that Cloudflare speaks to.
const HTTP_PORTS: [u16; 7] = [80, 8080, 8880, 2052, 2082, 2086, 2095];
const HTTPS_PORTS: [u16; 6] = [443, 2053, 2083, 2087, 2096, 8443];
/// Cloudflare waits for an answer so long, by the shortest that it documents.
const PATIENCE: Duration = Duration::from_secs(100);
/// It uses a connection again after so long.
const REUSE: Duration = Duration::from_secs(900);
const HEADER_BYTES: usize = 32 << 10;
const SOON: Duration = Duration::from_secs(30 * 86_400);

pub(super) fn judge(here: &Here, there: &There, now: SystemTime) -> Vec<Finding> {
    let mut findings = Findings::default();
    token(&mut findings, there, now);
    own(&mut findings, here);
    for zone in there.zones.values() {
        zone_itself(&mut findings, here, zone);
    }
    for site in &here.sites {
        self::site(&mut findings, there, site, now);
    }
    findings.0.sort_by_key(|it| it.severity);
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

/// Severity, code, what visitors get.
type Kind = (Severity, &'static str, &'static str);

impl Findings {
    fn add(&mut self, kind: Kind, subject: &str, message: impl Into<String>, hint: impl Into<String>) {
        let (severity, code, visitors) = kind;
        let (subject, message, hint) = (subject.to_owned(), message.into(), hint.into());
        self.0.push(Finding { severity, code, subject, message, hint, visitors });
    }

    fn failed(&mut self, kind: Kind, subject: &str, error: &Error, otherwise: &str) {
        self.add(kind, subject, error.message.clone(), error.hint.unwrap_or(otherwise));
    }
}

use Severity::{Advice, Error as Bad, Warning};

fn token(findings: &mut Findings, there: &There, now: SystemTime) {
    const KEY: &str = "api_token";
    let renew = "make a new token and write it into `api_token_file`: it counts from the next call on";
    match &there.token {
        None => findings.add(
            (Bad, "token-missing", ""),
            KEY,
            "there is no API token, so that nothing at Cloudflare can be looked at",
            "give `[cloudflare] api_token` or `api_token_file`",
        ),
        Some(Err(error)) if matches!(error.class, Class::Auth | Class::Config) => {
            findings.failed((Bad, "token-invalid", ""), KEY, error, renew);
        }
        // Advice only: what the token may do shows elsewhere.
        Some(Err(error)) => findings.failed((Warning, "token-unknown", ""), KEY, error, "ask again later"),
        Some(Ok(it)) if it.status == "expired" || it.ends.is_some_and(|it| it <= now) => {
            findings.add((Bad, "token-expired", ""), KEY, "the token has expired", renew);
        }
        Some(Ok(it)) if it.status != "active" => {
            let message = format!("the token is {}", it.status);
            findings.add((Bad, "token-disabled", ""), KEY, message, "enable it in the dashboard, or make another");
        }
        Some(Ok(it)) => {
            if let Some(left) = it.ends.and_then(|it| it.duration_since(now).ok()).filter(|it| *it < SOON) {
                let message = format!("the token expires within {} days", left.as_secs() / 86_400 + 1);
                findings.add((Warning, "token-expiring", ""), KEY, message, renew);
            }
        }
    }
}

/// What can be seen without asking anybody.
fn own(findings: &mut Findings, here: &Here) {
    if !here.trust {
        let message = "logs, limits and apps see Cloudflare's addresses in place of the visitors'";
        findings.add((Warning, "trust-off", ""), "trust", message, "set `[cloudflare] trust = true`");
    }
    for (key, port, known) in
        [("http_port", here.http_port, &HTTP_PORTS[..]), ("https_port", here.https_port, &HTTPS_PORTS[..])]
    {
        if let Some(port) = port.filter(|it| !known.contains(it)) {
            let message = format!("Cloudflare does not connect to port {port}");
            let known: Vec<String> = known.iter().map(u16::to_string).collect();
            let hint = format!("listen on one of {}, or forward one of them", known.join(", "));
            findings.add((Warning, "port", "522"), key, message, hint);
        }
    }
    if here.request_timeout > PATIENCE {
        let message = format!(
            "Cloudflare gives up after {} s, before miwid does after {} s",
            PATIENCE.as_secs(),
            here.request_timeout.as_secs()
        );
        findings.add((Warning, "timeout", "524"), "request_timeout", message, "set it to 95 or less");
    }
    if !here.trust && here.keepalive_timeout < REUSE {
        let message = "Cloudflare uses connections again for up to 900 s and may meet one that is just being closed";
        let hint = "set `[cloudflare] trust = true`, with which its connections are kept for 905 s";
        findings.add((Advice, "keepalive", "520"), "keepalive_timeout", message, hint);
    }
    if here.header_bytes_max < HEADER_BYTES {
        let message = "Cloudflare sends headers of up to 32 KB";
        findings.add((Warning, "header-size", "431"), "max_header_size", message, "set it to \"32KB\" or more");
    }
    if here.by_tls_alpn {
        let message = "TLS ends at Cloudflare, so that tls-alpn-01 cannot work behind it";
        let hint = "set `[acme] challenge` to \"dns-01\" or \"http-01\"";
        findings.add((Bad, "tls-alpn", ""), "acme.challenge", message, hint);
    }
}

fn zone_itself(findings: &mut Findings, here: &Here, zone: &Zone) {
    let name = zone.name.as_str();
    if let Some(error) = &zone.unreadable {
        return findings.failed((Bad, "zone-unreadable", ""), name, error, "give the token Zone > Zone > Read");
    }
    if zone.is_paused {
        let message =
            "Cloudflare is paused for the zone: visitors come directly, to a certificate that browsers may not know";
        findings.add((Bad, "zone-paused", ""), name, message, "resume it in the dashboard");
    }
    if zone.status != "active" {
        let message = format!("the zone is {}", zone.status);
        let hint = "set the name servers of the domain to those that Cloudflare names";
        findings.add((Bad, "zone-inactive", ""), name, message, hint);
    }
    if let Some(error) = zone.certificates.as_ref().filter(|_| here.asks_origin_ca) {
        let hint = "give the token Zone > SSL and Certificates > Edit";
        findings.failed((Bad, "rights-ssl", ""), name, error, hint);
    }
    mode(findings, zone);
    let has_pulls = zone.settings.get("tls_client_auth").map(String::as_str);
    if here.origin_pulls && has_pulls == Some("off") {
        let message = "client certificates are required here, but Cloudflare does not show one for this zone";
        let hint = "switch on Authenticated Origin Pulls for the zone, or `[cloudflare] origin_pulls` off";
        findings.add((Bad, "origin-pulls-off", "400"), name, message, hint);
    }
    if !here.origin_pulls && has_pulls == Some("on") {
        let message = "Cloudflare shows a client certificate, and nobody asks for it";
        findings.add((Advice, "origin-pulls-unused", ""), name, message, "set `[cloudflare] origin_pulls = true`");
    }
    if let Some(version) = zone.settings.get("min_tls_version").filter(|it| matches!(it.as_str(), "1.0" | "1.1")) {
        let message = format!("visitors may use TLS {version}, which is broken");
        findings.add((Advice, "min-tls", ""), name, message, "set Minimum TLS Version to 1.2 in the dashboard");
    }
}

fn mode(findings: &mut Findings, zone: &Zone) {
    const STRICT: &str = "set SSL/TLS to Full (strict) in the dashboard";
    let name = zone.name.as_str();
    match zone.settings.get("ssl").map(String::as_str) {
        Some("off") => {
            findings.add((Bad, "ssl-off", ""), name, "visitors are served without any encryption", STRICT);
        }
        Some("flexible") => {
            let message = "Cloudflare comes here in cleartext for visitors over HTTPS (Flexible)";
            findings.add((Bad, "ssl-flexible", ""), name, message, STRICT);
        }
        Some("full") => {
            let message = "Cloudflare takes any certificate from whoever answers at this address (Full)";
            findings.add((Advice, "ssl-full", ""), name, message, STRICT);
        }
        _ => {}
    }
}

fn site(findings: &mut Findings, there: &There, site: &Site, now: SystemTime) {
    let host = site.host.as_str();
    let zone = match there.places.get(host) {
        Some(Ok(id)) => there.zones.get(id),
        Some(Err(error)) => {
            let code = if error.class == Class::Auth { "rights-zone" } else { "zone-missing" };
            return findings.failed((Bad, code, ""), host, error, "give the token Zone > Zone > Read");
        }
        None => None,
    };
    if let Some(zone) = zone.filter(|it| it.unreadable.is_none() && !lies_in(host, &it.name)) {
        let message = format!("the host is not in the zone {}", zone.name);
        return findings.add(
            (Bad, "zone-missing", ""),
            host,
            message,
            "leave `[cloudflare] zone_id` out, or correct it",
        );
    }
    match there.records.get(host) {
        Some(Ok(records)) if records.is_empty() => {
            let hint = "add an A, AAAA or CNAME record that is proxied";
            findings.add((Bad, "dns-missing", "NXDOMAIN"), host, "there is no DNS record for the host", hint);
        }
        Some(Ok(records)) if records.iter().any(|proxied| !proxied) => {
            let message = "its DNS record leads past Cloudflare (grey cloud)";
            findings.add((Bad, "dns-grey", ""), host, message, "switch the record's proxy on");
        }
        Some(Err(error)) => {
            let hint = "give the token Zone > DNS > Read";
            findings.add((Advice, "dns-unknown", ""), host, error.message.clone(), hint);
        }
        _ => {}
    }
    certificate(findings, site, zone.and_then(|it| it.settings.get("ssl")).map(String::as_str), now);
}

/// In mode `strict` a certificate must be good; in the others Cloudflare takes any, or none.
fn certificate(findings: &mut Findings, site: &Site, mode: Option<&str>, now: SystemTime) {
    let host = site.host.as_str();
    let (severity, visitors) = match mode {
        Some("off" | "flexible") => return,
        Some("full") => (Warning, ""),
        _ => (Bad, "526"),
    };
    let hint = format!("miwictl cert request {host}");
    let Some(shown) = &site.shown else {
        return findings.add((Bad, "certificate-none", "525"), host, "there is no certificate for the host", hint);
    };
    if shown.not_after <= now {
        findings.add((severity, "certificate-expired", visitors), host, "its certificate has expired", hint);
    } else if !shown.covers {
        findings.add((severity, "certificate-other", visitors), host, "its certificate is for other names", hint);
    } else if shown.is_local {
        let message = "its certificate is from the local CA, which Cloudflare does not know";
        findings.add((severity, "certificate-local", visitors), host, message, hint);
    }
}

fn lies_in(host: &str, zone: &str) -> bool {
    let host = host.strip_prefix("*.").unwrap_or(host);
    host == zone || host.strip_suffix(zone).is_some_and(|it| it.ends_with('.'))
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
