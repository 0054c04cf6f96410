//! What can be asked of one zone: how it is, how it is set, and what is to leave its cache.

use http::Method;
use serde_json::{Value, json};

use super::{
    answers::{self, Answer},
    judge,
    routes::Call,
    state::{Right, State, Token, Zone},
};

/// Items of one request.
const ITEMS_MAX: usize = 30;

pub(super) fn is_known(method: &str, rest: &[&str]) -> bool {
    matches!((method, rest), ("GET", [] | ["settings", _]) | ("POST", ["purge_cache"]))
}

pub(super) fn answer(state: &mut State, token: &Token, call: &Call<'_>, zone: &str, rest: &[&str]) -> Answer {
    let right = match rest {
        [] => Right::ZoneRead,
        ["purge_cache"] => Right::CachePurge,
        _ => Right::SettingsRead,
    };
    let found = state.zones.iter_mut().find(|it| it.id == zone && it.account == token.account);
    let Some(zone) = found.filter(|_| token.may(zone, right)) else {
        return answers::error(403, 9109, "Unauthorized to access requested resource");
    };
    match (&call.parts.method, rest) {
        (&Method::GET, []) => Answer::ok(shown(zone)),
        (&Method::GET, ["settings", name]) => match zone.settings.get(*name) {
            Some(value) => Answer::ok(json!({ "id": name, "value": value, "editable": true, "modified_on": null })),
            None => answers::no_route(call.path),
        },
        _ => match judge::object(&call.parts.headers, call.body) {
            Ok(body) => purge(zone, body),
            Err(refusal) => *refusal,
        },
    }
}

pub(super) fn shown(zone: &Zone) -> Value {
    let status = if zone.is_active { "active" } else { "pending" };
    let account = json!({ "id": zone.account });
    json!({ "id": zone.id, "name": zone.name, "status": status, "paused": zone.is_paused, "account": account })
}

/// Exactly one kind of things.
fn purge(zone: &mut Zone, body: Value) -> Answer {
    let kinds = ["purge_everything", "files", "tags", "hosts", "prefixes"];
    let Some((key, value)) = body.as_object().filter(|it| it.len() == 1).and_then(|it| it.iter().next()) else {
        return answers::schema("/", "exactly one of what can be purged");
    };
    let pointer = format!("/{key}");
    if !kinds.contains(&key.as_str()) {
        return answers::schema(&pointer, "no such property");
    }
    if key == "purge_everything" {
        if *value != true {
            return answers::schema(&pointer, "true");
        }
    } else {
        let Some(items) = value.as_array().filter(|it| !it.is_empty()) else {
            return answers::schema(&pointer, "a list with something in it");
        };
        if items.len() > ITEMS_MAX {
            return answers::error(400, 1094, "Request exceeds the maximum of 30 items");
        }
        let is_good = |it: &&str| match key.as_str() {
            "files" => ["http://", "https://"].iter().any(|scheme| it.starts_with(scheme)),
            "tags" => it.bytes().all(|b| b.is_ascii_graphic() && b != b','),
            _ => !it.contains("://"),
        };
        if let Some(at) =
            items.iter().position(|it| it.as_str().filter(|it| !it.is_empty()).is_none_or(|it| !is_good(&it)))
        {
            return answers::schema(&format!("{pointer}/{at}"), "not what is purged so");
        }
    }
    zone.purged.push(body);
    Answer::ok(json!({ "id": zone.id }))
}
