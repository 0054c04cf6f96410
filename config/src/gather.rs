//! Brings everything that was written into one tree: the main file, what it includes, what the command line sets.
//!
//! Every node still knows its own file, so paths and problems belong to the text that wrote them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use crate::{
    Problem, Severity, glob,
    source::{At, Sources, absolute},
    tree::{self, Entries, Node, Value, join},
};

pub(crate) struct Gathered {
    pub(crate) sources: Sources,
    pub(crate) entries: Entries,
    /// Files that were read.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) texts: Vec<(PathBuf, String)>,
}

pub(crate) fn file(path: &Path, overrides: &[(String, String)]) -> Result<Gathered, Vec<Problem>> {
    let text = fs::read_to_string(path).map_err(|error| vec![unreadable(path, &error)])?;
    let mut gathered = gather(path, &text, overrides);
    gathered.files.insert(0, absolute(path));
    Ok(gathered)
}

pub(crate) fn text(name: &Path, text: &str, overrides: &[(String, String)]) -> Gathered {
    gather(name, text, overrides)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let message = match error.kind() {
        io::ErrorKind::NotFound => "this file does not exist".to_owned(),
        io::ErrorKind::InvalidData => "this file is not UTF-8 text".to_owned(),
        _ => format!("cannot read this file: {error}"),
    };
    let file = path.to_owned();
    Problem { severity: Severity::Error, file, line: 0, column: 0, key: String::new(), message, hint: None }
}

/// From texts that were gathered before; the first is the main file's.
pub(crate) fn texts(texts: &[(PathBuf, String)], overrides: &[(String, String)]) -> Gathered {
    let mut sources = Sources::default();
    let mut files = Vec::new();
    let mut entries = Entries::default();
    for (path, text) in texts {
        let more = parse(&mut sources, path, text.clone());
        merge(&mut sources, &mut entries, more, "");
        files.push(absolute(path));
    }
    finish(sources, entries, files, overrides)
}

fn gather(name: &Path, text: &str, overrides: &[(String, String)]) -> Gathered {
    let mut sources = Sources::default();
    let mut files = Vec::new();
    let mut entries = parse(&mut sources, name, text.to_owned());
    include(&mut sources, &mut entries, &mut files);
    finish(sources, entries, files, overrides)
}

fn finish(mut sources: Sources, mut entries: Entries, files: Vec<PathBuf>, overrides: &[(String, String)]) -> Gathered {
    let texts = sources.texts();
    for (key, value) in overrides {
        set(&mut sources, &mut entries, key, value);
    }
    Gathered { sources, entries, files, texts }
}

fn parse(sources: &mut Sources, name: &Path, text: String) -> Entries {
    let dir = absolute(name.parent().unwrap_or(Path::new("")).join(".").as_path());
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    let file = sources.add(name.to_owned(), dir, text);
    tree::parse(sources, file)
}

// === include ===

/// Reads what the main file includes. Included files include nothing: one level is easy to follow.
fn include(sources: &mut Sources, entries: &mut Entries, files: &mut Vec<PathBuf>) {
    let patterns: Vec<(At, String)> = match entries.get("include").map(|it| &it.value) {
        Some(Value::List(nodes)) => nodes
            .iter()
            .filter_map(|it| match &it.value {
                Value::Text(text) => Some((it.at, text.clone())),
                _ => None,
            })
            .collect(),
        _ => return,
    };
    for (at, pattern) in patterns {
        let full = sources.resolve(at, &pattern);
        match glob::expand(&full) {
            Ok(paths) if paths.is_empty() && !glob::is_pattern(&pattern) => {
                sources.error(at, "include", format!("{} does not exist", full.display()), None);
            }
            Ok(paths) => {
                for path in paths {
                    include_one(sources, entries, files, at, path);
                }
            }
            Err(error) => sources.error(at, "include", format!("cannot look for {}: {error}", full.display()), None),
        }
    }
}

fn include_one(sources: &mut Sources, entries: &mut Entries, files: &mut Vec<PathBuf>, at: At, path: PathBuf) {
    if files.contains(&path) {
        return;
    }
    match fs::read_to_string(&path) {
        Ok(text) => {
            let mut more = parse(sources, &path, text);
            if let Some(node) = more.shift_remove("include") {
                let hint = "list the files in the main file";
                sources.error(node.key_at, "include", "an included file cannot include others", Some(hint.into()));
            }
            merge(sources, entries, more, "");
            files.push(path);
        }
        Err(error) => {
            let problem = unreadable(&path, &error);
            sources.error(at, "include", format!("{}: {}", path.display(), problem.message), None);
        }
    }
}

/// Tables grow together; anything else may be written once only, and so may a backend.
fn merge(sources: &mut Sources, into: &mut Entries, from: Entries, path: &str) {
    for (name, node) in from {
        let path = join(path, &name);
        match into.get_mut(&name) {
            None => {
                into.insert(name, node);
            }
            Some(Node { value: Value::Table(old), .. }) if grows(&path, &node) => {
                if let Value::Table(new) = node.value {
                    merge(sources, old, new, &path);
                }
            }
            Some(old) => {
                let first = sources.origin(old.key_at);
                let message = format!("`{path}` is already defined at {}:{}", first.file.display(), first.line);
                sources.error(node.key_at, &path, message, Some("define it in one place only".into()));
            }
        }
    }
}

fn grows(path: &str, node: &Node) -> bool {
    matches!(node.value, Value::Table(_)) && !path.starts_with("backends.")
}

// === --set ===

/// Puts one `--set KEY=VALUE` over what the files say. The value is TOML if it can be read so, else text.
fn set(sources: &mut Sources, entries: &mut Entries, key: &str, value: &str) {
    let is_toml = DeValue::parse(value).is_ok();
    let written = if is_toml { value.to_owned() } else { format!("{value:?}") };
    // `{value:?}` is Rust's notation, which TOML shares but for control characters; those go in as they are.
    let text = format!("{key} = {written}\n");
    let file = sources.add("--set".into(), absolute(Path::new(".")), text.clone());
    let one_line = !key.contains(['\n', '=', '[']) && DeTable::parse(&text).is_ok();
    if !one_line {
        let hint = "write the key with dots and quote hosts: 'backends.\"shop.example.com\".retries=2'";
        sources.error(At { file, byte: 0 }, key, "this is not a key and a value", Some(hint.into()));
        return;
    }
    let more = tree::parse(sources, file);
    overlay(entries, more);
}

/// The new value wins; tables that are written key by key keep their other keys.
fn overlay(into: &mut Entries, from: Entries) {
    for (name, node) in from {
        match (into.get_mut(&name), node) {
            (Some(Node { value: Value::Table(old), .. }), Node { value: Value::Table(new), .. }) => overlay(old, new),
            (Some(old), node) => *old = node,
            (None, node) => {
                into.insert(name, node);
            }
        }
    }
}
