//! The endpoints, after authentication.

use std::time::{Duration, SystemTime};

use http::{Method, request::Parts};
use serde_json::{Value, json};

use super::{
    answers::{self, Answer},
    authority::{Authority, Mutation, Order, sign},
    judge,
    state::{Issued, Right, State, Token, TokenKind, Zone, id},
    zoned,
};

const IPV4: [&str; 15] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
];
const IPV6: [&str; 7] = [
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];

/// The authorities that sign.
pub(super) struct Authorities {
    pub(super) ecc: Authority,
    pub(super) rsa: Authority,
    pub(super) other: Authority,
}

pub(super) struct Call<'a> {
    pub(super) parts: &'a Parts,
    /// Below the base of the API, without the query.
    pub(super) path: &'a str,
    pub(super) body: &'a [u8],
    pub(super) mutation: Option<Mutation>,
}

impl Call<'_> {
    fn query(&self, name: &str) -> Option<String> {
        let query = self.parts.uri.query()?;
        let value = query.split('&').find_map(|it| it.strip_prefix(name)?.strip_prefix('='))?;
        Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.query(name)?.parse().ok()
    }
}

pub(super) fn answer(state: &mut State, authorities: &Authorities, call: &Call<'_>) -> Answer {
    let segments: Vec<String> = call
        .path
        .trim_start_matches('/')
        .split('/')
        .map(|it| percent_encoding::percent_decode_str(it).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if let (&Method::GET, ["ips"]) = (&call.parts.method, &segments[..]) {
        let usual = json!({ "ipv4_cidrs": IPV4, "ipv6_cidrs": IPV6, "etag": id("ranges") });
        if call.parts.headers.contains_key("authorization") {
            state.violate("a token was shown to an interface that needs none");
        }
        return Answer::ok(state.ips.clone().unwrap_or(usual));
    }
    if !is_known(&call.parts.method, &segments) {
        return answers::no_route(call.path);
    }
    let token = match judge::authenticate(state, call.parts, call.path) {
        Ok(token) => token.clone(),
        Err(refusal) => return *refusal,
    };
    match (&call.parts.method, &segments[..]) {
        (&Method::GET, ["user", "tokens", "verify"]) => verify(&token, TokenKind::User),
        (&Method::GET, ["accounts", account, "tokens", "verify"]) if *account == token.account => {
            verify(&token, TokenKind::Account)
        }
        (&Method::GET, ["zones"]) => zones(state, &token, call),
        (method, ["zones", zone, rest @ ..]) if zoned::is_known(method.as_str(), rest) => {
            zoned::answer(state, &token, call, zone, rest)
        }
        (_, ["zones", zone, "dns_records", ..]) => records(state, &token, call, zone, segments.get(3).copied()),
        (method, ["certificates", ..]) if !token.may_anywhere(Right::SslEdit) => {
            let _ = method;
            answers::error(403, 1016, "User is not authorized to perform this action")
        }
        (&Method::GET, ["certificates"]) => list(state, &token, call),
        (&Method::POST, ["certificates"]) => create(state, authorities, &token, call),
        (&Method::GET, ["certificates", id]) => match found(state, &token, id) {
            Some(issued) => Answer::ok(issued.shown()),
            None => answers::no_certificate(),
        },
        (&Method::DELETE, ["certificates", id]) => revoke(state, &token, id),
        _ => answers::no_route(call.path),
    }
}

fn is_known(method: &Method, segments: &[&str]) -> bool {
    if let ["zones", _, rest @ ..] = segments
        && zoned::is_known(method.as_str(), rest)
    {
        return true;
    }
    matches!(
        (method.as_str(), segments),
        ("GET", ["user", "tokens", "verify"] | ["accounts", _, "tokens", "verify"] | ["zones"])
            | ("GET" | "POST", ["certificates"] | ["zones", _, "dns_records"])
            | ("GET" | "DELETE", ["certificates", _])
            | ("DELETE", ["zones", _, "dns_records", _])
    )
}

fn verify(token: &Token, kind: TokenKind) -> Answer {
    if token.kind != kind {
        return answers::error(401, 1000, "Invalid API Token");
    }
    let message = json!({ "code": 10000, "message": "This API Token is valid and active", "type": null });
    let messages = if token.status.word() == "active" { json!([message]) } else { json!([]) };
    let mut result = json!({ "id": token.id, "status": token.status.word() });
    if let Some(at) = token.expires_on {
        result["expires_on"] = json!(format!("{}Z", &rfc3339(at)[..19]));
    }
    Answer::json(200, &json!({ "success": true, "errors": [], "messages": messages, "result": result }))
}

fn zones(state: &State, token: &Token, call: &Call<'_>) -> Answer {
    if !token.may_anywhere(Right::ZoneRead) {
        let actor = format!("Actor 'com.cloudflare.api.token.{}'", token.id);
        let message = format!("{actor} requires permission 'com.cloudflare.api.account.zone.list' to list zones");
        return answers::error(403, 0, &message);
    }
    let name = call.query("name");
    let shown: Vec<Value> = state
        .zones
        .iter()
        .filter(|it| it.account == token.account && token.may(&it.id, Right::ZoneRead))
        .filter(|it| name.as_ref().is_none_or(|name| it.name == *name))
        .map(zoned::shown)
        .collect();
    paged(shown, call)
}

fn paged(all: Vec<Value>, call: &Call<'_>) -> Answer {
    let per_page = call.number("per_page").unwrap_or(20).clamp(5, 50);
    let page = call.number("page").unwrap_or(1).max(1);
    let total = all.len();
    let shown: Vec<Value> = all.into_iter().skip((page - 1) * per_page).take(per_page).collect();
    let info = json!({
        "page": page, "per_page": per_page, "count": shown.len(), "total_count": total,
        "total_pages": total.div_ceil(per_page),
    });
    let body = json!({ "success": true, "errors": [], "messages": [], "result": shown, "result_info": info });
    Answer::json(200, &body)
}

fn list(state: &State, token: &Token, call: &Call<'_>) -> Answer {
    let Some(zone) = call.query("zone_id") else { return answers::error(400, 7003, "zone_id is required") };
    let visible = state.zones.iter().any(|it| it.id == zone && it.account == token.account);
    if !visible || !token.may(&zone, Right::SslEdit) {
        return answers::error(403, 1016, "User is not authorized to perform this action");
    }
    let shown = state.certificates.iter().filter(|it| it.zones.contains(&zone)).map(Issued::shown).collect();
    paged(shown, call)
}

fn found<'a>(state: &'a State, token: &Token, id: &str) -> Option<&'a Issued> {
    let issued = state.certificates.iter().find(|it| it.id == id)?;
    issued.zones.iter().all(|zone| token.may(zone, Right::SslEdit)).then_some(issued)
}

fn create(state: &mut State, authorities: &Authorities, token: &Token, call: &Call<'_>) -> Answer {
    let creation = match judge::object(&call.parts.headers, call.body).and_then(|it| judge::creation(state, token, &it))
    {
        Ok(creation) => creation,
        Err(refusal) => return *refusal,
    };
    let days = creation.validity.unwrap_or(5475);
    let order = Order {
        csr: &creation.csr,
        hostnames: &creation.hostnames,
        days,
        now: state.now(),
        mutation: call.mutation.as_ref(),
    };
    let authority = if creation.request_type == "origin-rsa" { &authorities.rsa } else { &authorities.ecc };
    let (pem, not_after) = sign(authority, &authorities.other, &order);
    let id = match &call.mutation {
        Some(Mutation::Id(id)) => id.clone(),
        _ => serial_of(&pem).unwrap_or_else(|| id(&pem)),
    };
    let expires_on = match &call.mutation {
        Some(Mutation::ExpiresOn(text)) => text.clone(),
        _ => go_time(not_after),
    };
    state.keys.insert(creation.key, token.account.clone());
    let issued = Issued {
        id,
        pem,
        hostnames: creation.hostnames,
        request_type: creation.request_type,
        expires_on,
        zones: creation.zones,
        revoked_at: None,
    };
    let mut shown = issued.shown();
    shown["csr"] = json!(creation.csr_text);
    shown["requested_validity"] = json!(days);
    state.certificates.push(issued);
    Answer::ok(shown)
}

/// Decimal, as Cloudflare's identifiers are.
fn serial_of(pem: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, leaf) = x509_parser::parse_x509_certificate(&pem.contents).ok()?;
    Some(leaf.tbs_certificate.serial.to_string())
}

fn revoke(state: &mut State, token: &Token, id: &str) -> Answer {
    if found(state, token, id).is_none() {
        return answers::no_certificate();
    }
    let now = rfc3339(state.now());
    let issued = state.certificates.iter_mut().find(|it| it.id == id);
    let at = issued.map(|it| it.revoked_at.get_or_insert(now).clone());
    Answer::ok(json!({ "id": id, "revoked_at": at }))
}

fn records(state: &mut State, token: &Token, call: &Call<'_>, zone: &str, record: Option<&str>) -> Answer {
    if !token.may(zone, Right::DnsEdit) {
        return answers::error(403, 9109, "Unauthorized to access requested resource");
    }
    let (now, before) = (state.now(), state.forestalled.clone());
    let Some(zone) = state.zones.iter_mut().find(|it| it.id == zone) else { return answers::no_route(call.path) };
    match (&call.parts.method, record) {
        (&Method::GET, None) => {
            let wanted = ["type", "name"].map(|it| (it, call.query(it)));
            let fits =
                |it: &&Value| wanted.iter().all(|(key, value)| value.as_ref().is_none_or(|value| it[*key] == **value));
            let shown = zone.records.values().filter(fits).cloned().collect();
            paged(shown, call)
        }
        (&Method::POST, None) => match judge::object(&call.parts.headers, call.body) {
            Ok(body) => {
                if let Some((comment, ttl)) = before {
                    let mut same = body.clone();
                    (same["comment"], same["ttl"]) = (json!(comment), json!(ttl));
                    add_record(zone, &same, now);
                }
                add_record(zone, &body, now)
            }
            Err(refusal) => *refusal,
        },
        (_, Some(record)) => match zone.records.remove(record) {
            Some(_) => Answer::ok(json!({ "id": record })),
            None => answers::error(404, 81044, "Record does not exist."),
        },
        _ => answers::no_route(call.path),
    }
}

fn add_record(zone: &mut Zone, body: &Value, now: SystemTime) -> Answer {
    let known = ["type", "name", "content", "ttl", "comment", "proxied", "tags"];
    if let Some(strange) =
        body.as_object().into_iter().flat_map(|it| it.keys()).find(|it| !known.contains(&it.as_str()))
    {
        return answers::schema(&format!("/{strange}"), "no such property");
    }
    if body["type"] != "TXT" {
        return answers::schema("/type", "TXT");
    }
    let (Some(name), Some(content)) = (body["name"].as_str(), body["content"].as_str()) else {
        return answers::schema("/name", "name and content are strings");
    };
    let ttl = body["ttl"].as_u64().unwrap_or(1);
    if ttl != 1 && !(60..=86_400).contains(&ttl) {
        return answers::schema("/ttl", "1, or 60 to 86400");
    }
    if name != zone.name && !name.ends_with(&format!(".{}", zone.name)) {
        return answers::error(400, 9009, "the name is not in the zone");
    }
    let same = zone.records.values().find(|it| it["name"] == *name && it["content"] == *content);
    match same {
        Some(it) if it["ttl"] == ttl => return answers::error(400, 81058, "An identical record already exists."),
        Some(_) => return answers::error(400, 81057, "Record already exists."),
        None => {}
    }
    let id = id(&format!("{name}{content}{}", zone.records.len()));
    let record = json!({
        "id": id, "type": "TXT", "name": name, "content": content, "ttl": ttl, "proxied": false,
        "comment": body["comment"], "created_on": rfc3339(now),
    });
    zone.records.insert(id, record.clone());
    Answer::ok(record)
}

fn rfc3339(at: SystemTime) -> String {
    let date = httpdate::fmt_http_date(at);
    // `Sun, 06 Nov 1994 08:49:37 GMT`
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = month.iter().position(|it| *it == &date[8..11]).unwrap_or(0) + 1;
    format!("{}-{month:02}-{}T{}.12345Z", &date[12..16], &date[5..7], &date[17..25])
}

/// As Go prints a time, which is what Cloudflare sends.
fn go_time(at: SystemTime) -> String {
    let text = rfc3339(at + Duration::ZERO);
    format!("{} {} +0000 UTC", &text[..10], &text[11..19])
}
