//! Who asks and what for, judged before anything is done: authentication, rights, body, request, host names.

use http::{HeaderMap, header, request::Parts};
use rcgen::CertificateSigningRequestParams;
use serde_json::Value;
use x509_parser::prelude::FromDer;

use super::{
    answers::{self, Answer},
    json,
    state::{Right, State, Status, Token},
};

const BODY_MAX: usize = 1 << 20;
const HOSTNAMES_MAX: usize = 200;
const VALIDITIES: [u64; 7] = [7, 30, 90, 365, 730, 1095, 5475];

/// The token, if the headers carry one in the right form and it may be used.
pub(super) fn authenticate<'a>(state: &'a State, parts: &Parts, path: &str) -> Result<&'a Token, Box<Answer>> {
    let headers = &parts.headers;
    let legacy = ["x-auth-key", "x-auth-email", "x-auth-user-service-key"].iter().any(|it| headers.contains_key(*it));
    let bearer = headers.get_all(header::AUTHORIZATION).iter().collect::<Vec<_>>();
    if !bearer.is_empty() && legacy {
        return Err(Box::new(answers::error(400, 6003, "Invalid request headers")));
    }
    if headers.contains_key("x-auth-user-service-key") {
        return Err(Box::new(answers::error(400, 10000, "Authentication error")));
    }
    let [bearer] = bearer[..] else {
        return Err(Box::new(if bearer.is_empty() {
            answers::error(400, 10000, "Authentication error")
        } else {
            answers::malformed_authorization()
        }));
    };
    let token = bearer.to_str().ok().and_then(|it| it.strip_prefix("Bearer ")).filter(|it| is_token68(it));
    let Some(token) = token else { return Err(Box::new(answers::malformed_authorization())) };
    let invalid = || {
        Box::new(match path.starts_with("/certificates") {
            true => answers::error(400, 10000, "Authentication error"),
            false => answers::error(403, 9109, "Invalid access token"),
        })
    };
    let known = state.token(token).ok_or_else(invalid)?;
    // A token tells about itself even when it may do nothing else.
    if known.status != Status::Active && !path.ends_with("/tokens/verify") {
        return Err(Box::new(answers::error(403, 9109, "Invalid access token")));
    }
    Ok(known)
}

fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

/// The body as an object, read strictly.
pub(super) fn object(headers: &HeaderMap, body: &[u8]) -> Result<Value, Box<Answer>> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let kind = kind.to_ascii_lowercase().replace(' ', "");
    if kind != "application/json" && kind != "application/json;charset=utf-8" {
        return Err(Box::new(answers::error(400, 6003, "Invalid request headers")));
    }
    if body.len() > BODY_MAX {
        return Err(Box::new(answers::schema("", "the body is longer than 1 MiB")));
    }
    let value = json::parse(body).map_err(|error| Box::new(answers::schema("", &error)))?;
    if value.is_object() { Ok(value) } else { Err(Box::new(answers::schema("", "an object is needed"))) }
}

/// A creation that may be carried out.
pub(super) struct Creation {
    pub(super) csr: CertificateSigningRequestParams,
    pub(super) csr_text: String,
    pub(super) key: Vec<u8>,
    pub(super) hostnames: Vec<String>,
    pub(super) request_type: String,
    /// Days; absent: fifteen years, which nobody means.
    pub(super) validity: Option<u64>,
    pub(super) zones: Vec<String>,
}

pub(super) fn creation(state: &State, token: &Token, body: &Value) -> Result<Creation, Box<Answer>> {
    let wrong = |pointer: &str, reason: &str| Box::new(answers::schema(pointer, reason));
    let fields = body.as_object().ok_or_else(|| wrong("", "an object is needed"))?;
    let known = ["csr", "hostnames", "request_type", "requested_validity"];
    if let Some(strange) = fields.keys().find(|it| !known.contains(&it.as_str())) {
        return Err(wrong(&format!("/{strange}"), "no such property"));
    }
    let csr_text = fields.get("csr").and_then(Value::as_str).ok_or_else(|| wrong("/csr", "a string is needed"))?;
    let request_type = fields.get("request_type").and_then(Value::as_str).unwrap_or_default();
    if !["origin-rsa", "origin-ecc", "keyless-certificate"].contains(&request_type) {
        return Err(wrong("/request_type", "one of origin-rsa, origin-ecc, keyless-certificate"));
    }
    let validity = match fields.get("requested_validity") {
        None => None,
        Some(days) => Some(
            days.as_u64()
                .filter(|it| VALIDITIES.contains(it))
                .ok_or_else(|| wrong("/requested_validity", "one of 7, 30, 90, 365, 730, 1095, 5475"))?,
        ),
    };
    let listed = fields.get("hostnames").and_then(Value::as_array);
    let listed = listed.ok_or_else(|| wrong("/hostnames", "an array is needed"))?;
    if listed.is_empty() || listed.len() > HOSTNAMES_MAX {
        return Err(wrong("/hostnames", "1 to 200 names"));
    }
    let (csr, key) = request(csr_text, request_type)?;
    let mut hostnames = Vec::new();
    for (at, name) in listed.iter().enumerate() {
        let pointer = format!("/hostnames/{at}");
        let name = name.as_str().ok_or_else(|| wrong(&pointer, "a string is needed"))?;
        let lower = name.to_ascii_lowercase();
        is_hostname(&lower).map_err(|reason| wrong(&pointer, reason))?;
        if hostnames.contains(&lower) {
            return Err(wrong(&pointer, "the name comes twice"));
        }
        hostnames.push(lower);
    }
    let mut zones = Vec::new();
    for name in &hostnames {
        let zone = state.zone_of(name).filter(|it| it.is_active && it.account == token.account);
        let zone =
            zone.filter(|it| token.may(&it.id, Right::SslEdit)).ok_or_else(|| Box::new(answers::hostname(name)))?;
        if !zones.contains(&zone.id) {
            zones.push(zone.id.clone());
        }
    }
    if state.keys.get(&key).is_some_and(|it| *it != token.account) {
        return Err(wrong("/csr", "the key belongs to another account"));
    }
    Ok(Creation {
        csr,
        csr_text: csr_text.to_owned(),
        key,
        hostnames,
        request_type: request_type.to_owned(),
        validity,
        zones,
    })
}

/// A signing request whose signature holds, with a key of the kind that was asked for.
fn request(text: &str, request_type: &str) -> Result<(CertificateSigningRequestParams, Vec<u8>), Box<Answer>> {
    let wrong = |reason: &str| Box::new(answers::schema("/csr", reason));
    if !is_csr_text(text) {
        return Err(wrong("PEM of exactly one CERTIFICATE REQUEST, with newlines"));
    }
    let csr =
        CertificateSigningRequestParams::from_pem(text).map_err(|error| wrong(&format!("not usable: {error}")))?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|_| wrong("not PEM"))?;
    let (_, parsed) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents)
        .map_err(|_| wrong("not a signing request"))?;
    let key = &parsed.certification_request_info.subject_pki;
    let parsed_key = key.parsed().map_err(|_| wrong("the key cannot be read"))?;
    let fits = match (&parsed_key, request_type) {
        (x509_parser::public_key::PublicKey::EC(point), "origin-ecc") => [256, 384].contains(&point.key_size()),
        (x509_parser::public_key::PublicKey::RSA(rsa), "origin-rsa") => rsa.key_size() >= 2048,
        (_, "keyless-certificate") => true,
        _ => false,
    };
    if !fits {
        return Err(wrong("the key is not of the kind that request_type says"));
    }
    Ok((csr, key.subject_public_key.data.to_vec()))
}

fn is_csr_text(text: &str) -> bool {
    let body = text
        .strip_prefix("-----BEGIN CERTIFICATE REQUEST-----\n")
        .and_then(|it| it.strip_suffix('\n').unwrap_or(it).strip_suffix("-----END CERTIFICATE REQUEST-----"));
    let is_line = |line: &str| {
        (1..=76).contains(&line.len()) && line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
    };
    body.and_then(|it| it.strip_suffix('\n')).is_some_and(|it| it.split('\n').all(is_line))
}

/// The name rules of Origin CA: at least two labels below the root, a wildcard only in front and alone, no addresses.
fn is_hostname(name: &str) -> Result<(), &'static str> {
    let bare = name.strip_prefix("*.").unwrap_or(name);
    if bare.contains('*') {
        return Err("a wildcard is the first label, whole and once");
    }
    if name.len() > 253 {
        return Err("longer than 253 characters");
    }
    if bare.parse::<std::net::IpAddr>().is_ok() {
        return Err("an address is no host name");
    }
    let labels: Vec<&str> = bare.split('.').collect();
    if labels.len() < 2 {
        return Err("a name has at least two labels");
    }
    let is_label = |it: &&str| {
        (1..=63).contains(&it.len())
            && it.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !it.starts_with('-')
            && !it.ends_with('-')
    };
    if !labels.iter().all(is_label) {
        return Err("a label is 1 to 63 letters, digits and inner hyphens");
    }
    if labels.last().is_some_and(|it| it.len() < 2 || it.starts_with(|c: char| c.is_ascii_digit())) {
        return Err("the last label is a top-level domain");
    }
    Ok(())
}

/// What is no error and yet not how a good client asks.
pub(super) fn manners(parts: &Parts, path: &str, body: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let what = format!("{} {path}", parts.method);
    let has = |name: &str| parts.headers.contains_key(name);
    if !has("user-agent") {
        found.push(format!("{what}: no User-Agent"));
    }
    if !has("accept") {
        found.push(format!("{what}: no Accept"));
    }
    if has("expect") {
        found.push(format!("{what}: Expect"));
    }
    if body.is_empty() && has("content-type") {
        found.push(format!("{what}: Content-Type without a body"));
    }
    if path == "/certificates" && parts.method == http::Method::POST {
        let text = String::from_utf8_lossy(body);
        if !text.contains("requested_validity") {
            found.push(format!("{what}: no requested_validity, which means fifteen years"));
        }
        if let Ok(body) = json::parse(body)
            && body["hostnames"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .any(|it| it != it.to_lowercase())
        {
            found.push(format!("{what}: host names in upper case"));
        }
    }
    found
}
