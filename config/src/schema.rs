//! The table of keys as a JSON Schema (for editors) and as a page to read (REFERENCE.md).

use std::{collections::BTreeSet, fmt::Write};

use serde_json::{Map, Value as Json, json};

use crate::keys::{Kind, ROOT, Table};

/// Draft 2020-12.
pub fn json_schema() -> Json {
    let mut definitions = Map::new();
    let mut schema = table(&ROOT, &mut definitions);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "miwid configuration".into();
    schema["$defs"] = definitions.into();
    schema
}

fn table(table: &'static Table, definitions: &mut Map<String, Json>) -> Json {
    let mut properties = Map::new();
    for key in table.keys() {
        let mut schema = kind(&key.kind, key.name, definitions);
        let default = if key.default.is_empty() { String::new() } else { format!(" Default: {}.", key.default) };
        schema["description"] = format!("{}{default}", key.doc).into();
        properties.insert(key.name.to_owned(), schema);
    }
    json!({ "type": "object", "description": table.doc, "properties": properties, "additionalProperties": false })
}

/// A string that may be, or hold, a variable.
const VARIABLE: &str = r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}";

fn kind(of: &'static Kind, name: &str, definitions: &mut Map<String, Json>) -> Json {
    let variable = json!({ "type": "string", "pattern": format!("^{VARIABLE}$") });
    match of {
        Kind::Flag => json!({ "anyOf": [{ "type": "boolean" }, variable] }),
        Kind::Integer { min, max } => {
            json!({ "anyOf": [{ "type": "integer", "minimum": min, "maximum": max }, variable] })
        }
        Kind::Number { min, max } => {
            json!({ "anyOf": [{ "type": "number", "minimum": min, "maximum": max }, variable] })
        }
        Kind::Size { min } => json!({ "type": ["integer", "string"], "minimum": min, "examples": ["10MB"] }),
        Kind::Duration { .. } => json!({ "type": ["integer", "string"], "minimum": 0, "examples": ["30s", "5m"] }),
        Kind::Signal => json!({ "type": ["integer", "string"], "minimum": 1, "maximum": 64 }),
        Kind::Choice(choices) => json!({ "anyOf": [{ "enum": choices }, variable] }),
        Kind::List(inner) => json!({ "type": "array", "items": kind(inner, name, definitions) }),
        Kind::Map(inner) => {
            let pattern = if name == "routes" { "^/" } else { "." };
            json!({
                "type": "object",
                "patternProperties": { pattern: kind(inner, name, definitions) },
                "additionalProperties": false,
            })
        }
        Kind::Table(inner) => reference(inner, name, definitions),
        Kind::Either(kinds) => {
            let each: Vec<Json> = kinds.iter().map(|it| kind(it, name, definitions)).collect();
            json!({ "anyOf": each })
        }
        _ => json!({ "type": "string" }),
    }
}

/// Tables that stand in several places are described once. `eab` and the like have names of their own already.
fn reference(inner: &'static Table, name: &str, definitions: &mut Map<String, Json>) -> Json {
    let name = if inner.key("http").is_some() { "probe" } else { name };
    if !definitions.contains_key(name) {
        // The place is taken first, so that a table inside itself would end here.
        definitions.insert(name.to_owned(), Json::Null);
        let schema = table(inner, definitions);
        definitions.insert(name.to_owned(), schema);
    }
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// The text of config/REFERENCE.md.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Configuration reference\n\n\
         Generated from the table of keys in `config/src/keys`; a test keeps it current.\n\n\
         Durations are seconds (`30`) or have a unit (`\"200ms\"`, `\"30s\"`, `\"5m\"`, `\"1h\"`). Sizes are bytes or have a unit \
         (`\"64KB\"`, `\"10MB\"`), each a power of 1024. Any string may hold `${NAME}` or `${NAME:-default}`; a plain `${` is \
         written `$${`. Relative paths start at the directory of the file that writes them.\n",
    );
    let mut seen = BTreeSet::new();
    section(&mut page, &ROOT, "", &mut seen);
    page
}

fn section(page: &mut String, table: &'static Table, path: &str, seen: &mut BTreeSet<&'static str>) {
    let title = if path.is_empty() { "The top".to_owned() } else { format!("`[{path}]`") };
    let _ = write!(page, "\n## {title}\n\n{}\n", table.doc);
    // The same table in a second place needs no second list.
    if !seen.insert(table.doc) {
        let _ = write!(page, "\nKeys as above.\n");
        return;
    }
    let _ = write!(page, "\n| Key | Value | Default | Meaning |\n|---|---|---|---|\n");
    for key in table.keys() {
        let default = match key.default {
            "" => String::new(),
            text if text.contains('`') || text.contains(' ') => text.replace('|', "\\|"),
            text => format!("`{}`", text.replace('|', "\\|")),
        };
        let _ =
            writeln!(page, "| `{}` | {} | {default} | {} |", key.name, said(&key.kind), key.doc.replace('|', "\\|"));
    }
    for key in table.keys() {
        let here = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for (inner, suffix) in tables(&key.kind) {
            section(page, inner, &here(&format!("{}{suffix}", key.name)), seen);
        }
    }
}

fn tables(kind: &'static Kind) -> Vec<(&'static Table, &'static str)> {
    match kind {
        Kind::Table(table) => vec![(table, "")],
        Kind::Map(inner) => tables(inner).into_iter().map(|(table, _)| (table, ".\"NAME\"")).collect(),
        Kind::Either(kinds) => kinds.iter().flat_map(tables).collect(),
        _ => Vec::new(),
    }
}

fn said(kind: &Kind) -> String {
    match kind {
        Kind::Choice(choices) => choices.iter().map(|it| format!("`\"{it}\"`")).collect::<Vec<_>>().join(", "),
        Kind::Integer { min: 0, max: 65535 } => "a port".to_owned(),
        Kind::Path => "a path".to_owned(),
        Kind::Address => "an IP address".to_owned(),
        Kind::Socket => "an address and a port".to_owned(),
        Kind::Net => "an address range".to_owned(),
        Kind::Upstream | Kind::WebUrl => "an address".to_owned(),
        Kind::Host => "a host".to_owned(),
        Kind::Secret => "a secret".to_owned(),
        Kind::Signal => "a signal".to_owned(),
        Kind::List(inner) => format!("an array: {}", said(inner)),
        Kind::Map(inner) => format!("a table: {}", said(inner)),
        Kind::Either(kinds) => kinds.iter().map(said).collect::<Vec<_>>().join(" or "),
        other => other.describe(),
    }
}
