//! `[ssl]`, `[cloudflare]`, `[acme]`.

use crate::{Acme, Cloudflare, Eab, Issuer, OnlyRefusal, Origin, Ssl, SslPlaces, UnknownSni, section::Section};

/// `above` gives what the table of a site leaves out.
pub(super) fn ssl(section: &Section<'_>, above: Option<&Ssl>) -> Ssl {
    let is_of_site = above.is_some();
    let above = above.cloned().unwrap_or_default();
    let own_pair = section.has("cert") || section.has("key");
    let place = |key: &str, above: Origin| if section.has(key) { section.origin_of(key) } else { above };
    let places = SslPlaces {
        cert: place("cert", above.places.cert),
        key: place("key", above.places.key),
        client_auth: place("client_auth", above.places.client_auth),
        client_ca: place("client_ca", above.places.client_ca),
        issuer: place("issuer", above.places.issuer),
        ktls: place("ktls", above.places.ktls),
    };
    let issuers = [Issuer::Auto, Issuer::CloudflareOrigin, Issuer::Acme, Issuer::Local, Issuer::File];
    let ssl = Ssl {
        auto_cert: section.flag("auto_cert").unwrap_or(above.auto_cert),
        domains: section.texts("domains").unwrap_or(above.domains).iter().map(|it| it.to_ascii_lowercase()).collect(),
        issuer: section.choice("issuer", &issuers).unwrap_or(above.issuer),
        // A certificate and its key are a pair: half of it never comes from elsewhere.
        cert: section.path("cert").or(above.cert.filter(|_| !own_pair)),
        key: section.path("key").or(above.key.filter(|_| !own_pair)),
        min_version: section.text("min_version").or(above.min_version),
        client_auth: section.text("client_auth").or(above.client_auth),
        client_ca: section.path("client_ca").or(above.client_ca),
        unknown_sni: section
            .choice("unknown_sni", &[UnknownSni::Reject, UnknownSni::Default])
            .unwrap_or(above.unknown_sni),
        early_data: section.flag("early_data").unwrap_or(above.early_data),
        ktls: section.flag("ktls").unwrap_or(above.ktls),
        storage: section.path("storage").or(above.storage),
        places,
    };
    judge(section, &ssl);
    if is_of_site {
        for key in ["unknown_sni", "early_data", "ktls", "storage"] {
            if section.has(key) {
                section.error_at_key(
                    key,
                    "this is the same for all sites",
                    Some("move it to the table `[ssl]`".into()),
                );
            }
        }
    }
    ssl
}

fn judge(section: &Section<'_>, ssl: &Ssl) {
    match (section.has("cert"), section.has("key")) {
        (true, false) => {
            section.error_at("cert", "`cert` has no `key`", Some("give the private key's file as `key`".into()))
        }
        (false, true) => {
            section.error_at("key", "`key` has no `cert`", Some("give the certificate's file as `cert`".into()))
        }
        (false, false) if section.has("issuer") && ssl.issuer == Issuer::File && ssl.cert.is_none() => {
            section.error_at("issuer", "issuer \"file\" needs a certificate", Some("give `cert` and `key`".into()));
        }
        _ => {}
    }
    let checks_clients = ssl.client_auth.as_deref().is_some_and(|it| it != "off");
    if section.has("client_auth") && checks_clients && !section.has("client_ca") && ssl.client_ca.is_none() {
        section.error_at(
            "client_auth",
            "nobody is named who signs client certificates",
            Some("give `client_ca`".into()),
        );
    }
}

/// Days that Origin CA signs for.
const VALIDITIES: [u32; 7] = [7, 30, 90, 365, 730, 1095, 5475];

pub(super) fn cloudflare(section: &Section<'_>) -> Cloudflare {
    let read = Cloudflare {
        api_token: section.secret("api_token"),
        api_token_file: section.path("api_token_file"),
        zone_id: section.text("zone_id"),
        account_id: section.text("account_id"),
        api_base: section.text("api_base"),
        trust: section.flag("trust").unwrap_or(false),
        only: section.flag("only").unwrap_or(false),
        only_exempt: section.nets("only_exempt").unwrap_or_default(),
        only_refusal: section.choice("only_refusal", &[OnlyRefusal::Close, OnlyRefusal::Answer]).unwrap_or_default(),
        origin_pulls: section.flag("origin_pulls").unwrap_or(false),
        origin_ca_validity_days: section.integer("origin_ca_validity_days"),
        origin_ca_roots: section.path("origin_ca_roots"),
    };
    for key in ["only_exempt", "only_refusal"] {
        if section.has(key) && !read.only {
            section.error_at_key(key, "this is about `only`, which is off", Some("set `only = true`".into()));
        }
    }
    if let Some(token) = &read.api_token {
        let key = if section.has("api_token") { "api_token" } else { "api_token_file" };
        if let Some((message, hint)) = unusable(token.expose()) {
            section.error_at(key, message, Some(hint.into()));
        }
    }
    if let Some(days) = read.origin_ca_validity_days.filter(|it| !VALIDITIES.contains(it)) {
        let hint = format!("choose one of {}", VALIDITIES.map(|it| it.to_string()).join(", "));
        section.error_at("origin_ca_validity_days", format!("Origin CA does not sign for {days} days"), Some(hint));
    }
    read
}

/// What cannot be an API token. The value itself is never part of what is said.
fn unusable(token: &str) -> Option<(&'static str, &'static str)> {
    const MAKE: &str = "make an API token with the permission Zone > SSL and Certificates > Edit";
    if token.starts_with("v1.0-") {
        return Some(("this is an Origin CA key; Cloudflare takes them no more since 2026-09-30", MAKE));
    }
    if token.starts_with("cfk_") || (token.len() == 37 && token.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Some(("this is a global API key, which can do everything with the account", MAKE));
    }
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Some((
            "this is no API token: it is empty, or has blanks or characters that none has",
            "give the token and nothing else",
        ));
    }
    None
}

pub(super) fn acme(section: &Section<'_>) -> Option<Acme> {
    section.present().then(|| Acme {
        directory: section.text("directory"),
        contact: section.texts("contact").unwrap_or_default(),
        challenge: section.text("challenge"),
        http_port_public: section.integer("http_port_public"),
        profile: section.text("profile"),
        eab: eab(&section.section("eab")),
        ca_file: section.path("ca_file"),
    })
}

fn eab(section: &Section<'_>) -> Option<Eab> {
    if !section.present() {
        return None;
    }
    let hmac_key = section.secret("hmac_key");
    if !section.has("key_id") {
        section.error("`key_id` is missing", None);
    }
    if !section.has("hmac_key") && !section.has("hmac_key_file") {
        section.error("`hmac_key` is missing", Some("give `hmac_key` or `hmac_key_file`".into()));
    }
    Some(Eab { key_id: section.text("key_id")?, hmac_key: hmac_key? })
}
