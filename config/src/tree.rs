//! TOML text to a tree of values that know where they were written.
//!
//! Environment variables are put in here, so everything above sees final strings. Spans are byte offsets in `toml`;
//! they become lines and columns here, once.

use std::path::Path;

use indexmap::IndexMap;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{Origin, Problem, Severity};

pub(crate) type Table = IndexMap<String, Node>;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Where the key stands (for an array element: the element).
    pub(crate) at: Origin,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Table),
    Datetime,
}

impl Value {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::Datetime => "a date",
        }
    }
}

pub(crate) fn problem(at: &Origin, key: &str, message: impl Into<String>, hint: Option<String>) -> Problem {
    Problem {
        severity: Severity::Error,
        file: at.file.clone(),
        line: at.line,
        column: at.column,
        key: key.to_owned(),
        message: message.into(),
        hint,
    }
}

/// Joins a key to a dotted path, quoting it when TOML would.
pub(crate) fn dotted(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

pub(crate) fn parse(name: &Path, text: &str, problems: &mut Vec<Problem>) -> Table {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut planter = Planter { name, text, problems };
    for error in errors {
        let at = planter.origin(error.span().map_or(0, |span| span.start));
        planter.problems.push(problem(&at, "", error.message().to_owned(), None));
    }
    planter.table("", table.get_ref())
}

struct Planter<'a> {
    name: &'a Path,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Planter<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset.min(self.text.len())).unwrap_or("");
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Origin {
            file: self.name.to_owned(),
            line: before.matches('\n').count() as u32 + 1,
            column: before[line_start..].chars().count() as u32 + 1,
        }
    }

    fn table(&mut self, path: &str, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut out = Table::new();
        for (key, value) in entries {
            let name = key.get_ref().to_string();
            let path = dotted(path, &name);
            let at = self.origin(key.span().start);
            let value = self.value(&path, &at, value);
            out.insert(name, Node { value, at });
        }
        out
    }

    fn value(&mut self, path: &str, at: &Origin, value: &Spanned<DeValue<'_>>) -> Value {
        match value.get_ref() {
            DeValue::String(text) => {
                let (text, missing) = expand(text);
                for name in missing {
                    let message = format!("environment variable {name} is not set");
                    let hint = format!("set it, or write ${{{name}:-default}}");
                    self.problems.push(problem(at, path, message, Some(hint)));
                }
                Value::Text(text)
            }
            DeValue::Integer(n) => match i64::from_str_radix(&n.as_str().replace('_', ""), n.radix()) {
                Ok(n) => Value::Integer(n),
                Err(_) => {
                    self.problems.push(problem(at, path, "the number is too large", None));
                    Value::Integer(0)
                }
            },
            DeValue::Float(n) => Value::Float(n.as_str().replace('_', "").parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(b) => Value::Boolean(*b),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| {
                        let at = self.origin(item.span().start);
                        Node { value: self.value(path, &at, item), at }
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(path, table)),
        }
    }
}

/// Puts environment variables in; also returns the names of those that are not set.
fn expand(text: &str) -> (String, Vec<String>) {
    let (mut out, mut missing, mut rest) = (String::new(), Vec::new(), text);
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start - 1]);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        let Some(length) = rest[start..].find('}') else { break };
        out.push_str(&rest[..start]);
        let inside = &rest[start + 2..start + length];
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(n, d)| (n, Some(d)));
        // A name with `=` or NUL can't be in the environment.
        match (std::env::var(name).ok().filter(|v| default.is_none() || !v.is_empty()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => missing.push(name.to_owned()),
        }
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    (out, missing)
}
