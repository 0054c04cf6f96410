//! From text, or from a file and what it includes, to a `Config`.
//!
//! Problems are sorted by place and deduplicated here: a key may be looked at by more than one reader.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use indexmap::IndexMap;

use crate::{
    Capabilities, Config, Loaded, Origin, Problem, Severity,
    backend::backend,
    globals,
    section::{Section, Sink},
    tree::{Node, Table, Value, dotted, parse, problem},
};

/// Reads the file at `path` and everything it includes.
pub fn load(path: &Path, overrides: &[(String, String)], capabilities: &Capabilities) -> Result<Loaded, Vec<Problem>> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let start = Origin { file: path.clone(), line: 0, column: 0 };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| vec![problem(&start, "", format!("cannot read the file: {error}"), None)])?;
    let mut loaded = load_text(&path, &text, overrides, capabilities)?;
    loaded.config.path = Some(path);
    Ok(loaded)
}

/// Reads `text` as if it stood in the file `name` (for tests, and for the built-in default).
pub fn load_text(
    name: &Path,
    text: &str,
    overrides: &[(String, String)],
    capabilities: &Capabilities,
) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut files = vec![name.to_owned()];
    let mut table = parse(name, text, &mut problems);
    include(name, &mut table, &mut files, &mut problems);
    for (key, value) in overrides {
        apply(&mut table, key, value, &mut problems);
    }
    refuse(&table, &mut Vec::new(), "", capabilities, &mut problems);
    let sink = RefCell::new(problems);
    let config = config(name, &table, files, &sink);
    let mut problems = sink.into_inner();
    problems.sort_by(|a, b| (&a.file, a.line, a.column, &a.key).cmp(&(&b.file, b.line, b.column, &b.key)));
    problems.dedup();
    if problems.iter().any(|p| p.severity == Severity::Error) {
        return Err(problems);
    }
    Ok(Loaded { config, warnings: problems })
}

fn config(name: &Path, table: &Table, mut files: Vec<PathBuf>, sink: &Sink) -> Config {
    let at = Origin { file: name.to_owned(), line: 1, column: 1 };
    let s = Section::new(sink, String::new(), at, Some(table));
    let _ = s.node("include");
    let mut backends = IndexMap::new();
    for (host, path, node) in s.entries("backends") {
        backends.insert(host.to_ascii_lowercase(), backend(&s.child(path, node), host, &mut files));
    }
    Config {
        path: None,
        server: globals::server(&s.section("server")),
        admin: globals::admin(&s.section("admin")),
        control: globals::control(&s.section("control")),
        ssl: globals::ssl(&s.section("ssl")),
        cloudflare: globals::cloudflare(&s.section("cloudflare"), &mut files),
        acme: globals::acme(&s.section("acme"), &mut files),
        compression: globals::compression(&s.section("compression")),
        cache: globals::cache(&s.section("cache")),
        security: globals::security(&s.section("security")),
        logging: globals::logging(&s.section("logging")),
        tracing: globals::tracing(&s.section("tracing")),
        metrics: globals::metrics(&s.section("metrics")),
        backends,
        files,
    }
}

/// Merges the included files; they may only bring backends and tables that are not there yet.
fn include(name: &Path, table: &mut Table, files: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    let Some(Node { value: Value::Array(patterns), at }) = table.get("include").cloned() else { return };
    for pattern in patterns {
        let Value::Text(pattern) = &pattern.value else {
            problems.push(problem(&at, "include", "expected an array of strings", None));
            continue;
        };
        let full = name.parent().unwrap_or(Path::new("")).join(pattern);
        for path in matching(&full) {
            match std::fs::read_to_string(&path) {
                Ok(text) => merge(table, parse(&path, &text, problems), "", problems),
                Err(error) => {
                    problems.push(problem(&at, "include", format!("cannot read {}: {error}", path.display()), None))
                }
            }
            files.push(path);
        }
    }
}

fn matching(pattern: &Path) -> Vec<PathBuf> {
    let wanted = pattern.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if !wanted.contains(['*', '?']) {
        return vec![pattern.to_owned()];
    }
    let entries = std::fs::read_dir(pattern.parent().unwrap_or(Path::new("."))).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|e| glob(wanted.as_bytes(), e.file_name().to_string_lossy().as_bytes()))
        .map(|e| e.path())
        .collect();
    found.sort();
    found
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => glob(&pattern[1..], text) || (!text.is_empty() && glob(pattern, &text[1..])),
        (Some(b'?'), Some(_)) => glob(&pattern[1..], &text[1..]),
        (Some(a), Some(b)) if a == b => glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

fn merge(into: &mut Table, from: Table, path: &str, problems: &mut Vec<Problem>) {
    for (key, node) in from {
        let dotted = dotted(path, &key);
        match (into.get_mut(&key), node.value) {
            (None, value) => {
                into.insert(key, Node { value, at: node.at });
            }
            (Some(Node { value: Value::Table(old), .. }), Value::Table(new)) if path.is_empty() => {
                merge(old, new, &dotted, problems)
            }
            (Some(old), _) => {
                let first = format!("first set at {}:{}:{}", old.at.file.display(), old.at.line, old.at.column);
                problems.push(problem(&node.at, &dotted, "set twice", Some(first)));
            }
        }
    }
}

/// `--set KEY=VALUE`: the value is TOML when it parses as TOML, else a string.
fn apply(table: &mut Table, key: &str, value: &str, problems: &mut Vec<Problem>) {
    let name = Path::new("--set");
    let text = format!("{key} = {value}");
    let quoted = format!("{key} = {}", serde_json::Value::from(value));
    let chosen = if toml::de::DeTable::parse(&text).is_ok() { text } else { quoted };
    overlay(table, parse(name, &chosen, problems));
}

fn overlay(into: &mut Table, from: Table) {
    for (key, node) in from {
        match (into.get_mut(&key), node.value) {
            (Some(Node { value: Value::Table(old), .. }), Value::Table(new)) => overlay(old, new),
            (_, value) => {
                into.insert(key, Node { value, at: node.at });
            }
        }
    }
}

/// A key whose feature is absent is an error, never ignored. A pattern may end in `=value` to refuse one value only.
fn refuse(
    table: &Table,
    trail: &mut Vec<String>,
    path: &str,
    capabilities: &Capabilities,
    problems: &mut Vec<Problem>,
) {
    for (key, node) in table {
        trail.push(key.clone());
        let path = dotted(path, key);
        for (pattern, message) in &capabilities.unavailable {
            let (keys, value) =
                pattern.split_once('=').map_or((*pattern, None), |(k, v)| (k.trim(), Some(v.trim().trim_matches('"'))));
            let same = value.is_none_or(|v| matches!(&node.value, Value::Text(text) if text == v));
            if same && covers(keys, trail) {
                problems.push(problem(&node.at, &path, message.clone(), None));
            }
        }
        if let Value::Table(inner) = &node.value {
            refuse(inner, trail, &path, capabilities, problems);
        }
        trail.pop();
    }
}

fn covers(pattern: &str, trail: &[String]) -> bool {
    let mut keys = trail.iter();
    for part in pattern.split('.') {
        match (part, keys.next()) {
            ("**", key) => return key.is_some(),
            ("*", Some(_)) => {}
            (part, Some(key)) if part == key => {}
            _ => return false,
        }
    }
    keys.next().is_none()
}

/// The configuration that runs when no file is found: loopback only, with one supervised demo app.
pub fn builtin(exe: &Path) -> String {
    let exe = serde_json::Value::from(exe.to_string_lossy());
    format!(
        "[server]\nbind = [\"127.0.0.1\", \"[::1]\"]\nhttp_port = 8080\nenable_https = false\n\n\
         [backends.\"app.localhost\"]\nname = \"demo\"\n\n\
         [backends.\"app.localhost\".process]\ncommand = {exe}\nargs = [\"demo-app\"]\n"
    )
}
