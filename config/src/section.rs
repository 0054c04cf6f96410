//! Reads one table key by key, collecting every problem.
//!
//! A key that nobody asked for by the time the section is dropped is unknown: so every reader must ask for all its
//! keys, whatever else it found.

use std::{cell::RefCell, path::PathBuf, time::Duration};

use crate::{
    ByteSize, Origin, Problem, Secret,
    tree::{Node, Table, Value, dotted, problem},
    units,
};

pub(crate) type Sink = RefCell<Vec<Problem>>;

pub(crate) struct Section<'a> {
    pub(crate) sink: &'a Sink,
    pub(crate) path: String,
    pub(crate) at: Origin,
    table: Option<&'a Table>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(sink: &'a Sink, path: String, at: Origin, table: Option<&'a Table>) -> Self {
        Self { sink, path, at, table, asked: RefCell::new(Vec::new()) }
    }

    pub(crate) fn present(&self) -> bool {
        self.table.is_some()
    }

    pub(crate) fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.asked.borrow_mut().push(key);
        self.table?.get(key)
    }

    pub(crate) fn origin(&self, key: &'static str) -> Origin {
        self.node(key).map_or_else(|| self.at.clone(), |node| node.at.clone())
    }

    pub(crate) fn wrong(&self, key: &'static str, message: impl Into<String>, hint: Option<&str>) {
        let at = self.origin(key);
        self.sink.borrow_mut().push(problem(&at, &dotted(&self.path, key), message, hint.map(str::to_owned)));
    }

    /// Says that the section as a whole is wrong.
    pub(crate) fn faulty(&self, message: &str, hint: &str) {
        self.sink.borrow_mut().push(problem(&self.at, &self.path, message, Some(hint.to_owned())));
    }

    fn parsed<T>(&self, key: &'static str, wanted: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let node = self.node(key)?;
        let value = read(&node.value);
        if value.is_none() {
            let found = match &node.value {
                Value::Integer(n) => format!("{n}"),
                other => other.kind().to_owned(),
            };
            self.wrong(key, format!("expected {wanted}, found {found}"), None);
        }
        value
    }

    pub(crate) fn text(&self, key: &'static str) -> Option<String> {
        self.parsed(key, "a string", |v| if let Value::Text(s) = v { Some(s.clone()) } else { None })
    }

    pub(crate) fn flag(&self, key: &'static str) -> Option<bool> {
        self.parsed(key, "true or false", |v| if let Value::Boolean(b) = v { Some(*b) } else { None })
    }

    pub(crate) fn number<T: TryFrom<i64>>(&self, key: &'static str) -> Option<T> {
        let bits = size_of::<T>() * 8;
        let wanted = format!("an integer that fits {bits} bits and is not negative");
        self.parsed(key, &wanted, |v| match v {
            Value::Integer(n) if *n >= 0 => T::try_from(*n).ok(),
            _ => None,
        })
    }

    pub(crate) fn float(&self, key: &'static str) -> Option<f64> {
        self.parsed(key, "a number", |v| match v {
            Value::Float(n) if n.is_finite() && *n >= 0.0 => Some(*n),
            Value::Integer(n) if *n >= 0 => Some(*n as f64),
            _ => None,
        })
    }

    pub(crate) fn duration(&self, key: &'static str) -> Option<Duration> {
        self.parsed(key, "a duration such as 30, \"30s\" or \"5m\"", |v| match v {
            Value::Integer(n) => u64::try_from(*n).ok().map(Duration::from_secs),
            Value::Float(n) => Duration::try_from_secs_f64(*n).ok(),
            Value::Text(s) => units::duration(s),
            _ => None,
        })
    }

    pub(crate) fn size(&self, key: &'static str) -> Option<ByteSize> {
        self.parsed(key, "a size such as \"10MB\"", |v| match v {
            Value::Integer(n) => u64::try_from(*n).ok().map(ByteSize),
            Value::Text(s) => units::size(s),
            _ => None,
        })
    }

    pub(crate) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.parsed(key, "an array of strings", |v| match v {
            Value::Array(items) => {
                items.iter().map(|n| if let Value::Text(s) = &n.value { Some(s.clone()) } else { None }).collect()
            }
            _ => None,
        })
    }

    pub(crate) fn numbers<T: TryFrom<i64>>(&self, key: &'static str) -> Option<Vec<T>> {
        self.parsed(key, "an array of integers", |v| match v {
            Value::Array(items) => {
                items.iter().map(|n| if let Value::Integer(i) = n.value { T::try_from(i).ok() } else { None }).collect()
            }
            _ => None,
        })
    }

    /// Strings that are something else: addresses, networks.
    pub(crate) fn each<T>(&self, key: &'static str, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let mut out = Vec::new();
        for text in self.texts(key)? {
            match read(&text) {
                Some(value) => out.push(value),
                None => self.wrong(key, format!("\"{text}\" is not {wanted}"), None),
            }
        }
        Some(out)
    }

    pub(crate) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let all: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.wrong(key, format!("\"{text}\" is not a known value"), Some(&format!("use {}", all.join(", "))));
        }
        found
    }

    pub(crate) fn path(&self, key: &'static str) -> Option<PathBuf> {
        let text = self.text(key)?;
        let file = self.origin(key).file;
        Some(file.parent().map_or_else(|| PathBuf::from(&text), |dir| dir.join(&text)))
    }

    /// A secret written here, or in the file that the `_file` twin names.
    pub(crate) fn secret(&self, key: &'static str, twin: &'static str, files: &mut Vec<PathBuf>) -> Option<Secret> {
        let (inline, path) = (self.text(key), self.path(twin));
        let Some(path) = path else { return inline.map(Secret::new) };
        if inline.is_some() {
            self.wrong(twin, format!("{key} and {twin} are both set"), Some("keep one of them"));
        }
        files.push(path.clone());
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(Secret::new(text.trim())),
            Err(error) => {
                self.wrong(twin, format!("cannot read {}: {error}", path.display()), None);
                None
            }
        }
    }

    pub(crate) fn section(&self, key: &'static str) -> Section<'a> {
        let path = dotted(&self.path, key);
        let at = self.origin(key);
        let table = self.node(key).and_then(|node| self.as_table(&path, node));
        Section::new(self.sink, path, at, table)
    }

    /// The entries of a table whose keys are free: hosts, headers, variables.
    pub(crate) fn entries(&self, key: &'static str) -> Vec<(&'a str, String, &'a Node)> {
        let path = dotted(&self.path, key);
        let Some(table) = self.node(key).and_then(|node| self.as_table(&path, node)) else { return Vec::new() };
        table.iter().map(|(name, node)| (name.as_str(), dotted(&path, name), node)).collect()
    }

    pub(crate) fn texts_by_key(&self, key: &'static str) -> Vec<(String, String)> {
        let mut out = Vec::new();
        for (name, path, node) in self.entries(key) {
            match &node.value {
                Value::Text(text) => out.push((name.to_owned(), text.clone())),
                other => self.mismatch(&path, node, "a string", other.kind()),
            }
        }
        out
    }

    pub(crate) fn child(&self, path: String, node: &'a Node) -> Section<'a> {
        let table = self.as_table(&path, node);
        Section::new(self.sink, path, node.at.clone(), table)
    }

    fn as_table(&self, path: &str, node: &'a Node) -> Option<&'a Table> {
        if let Value::Table(table) = &node.value {
            return Some(table);
        }
        self.mismatch(path, node, "a table", node.value.kind());
        None
    }

    fn mismatch(&self, path: &str, node: &Node, wanted: &str, found: &str) {
        self.sink.borrow_mut().push(problem(&node.at, path, format!("expected {wanted}, found {found}"), None));
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let asked = self.asked.borrow();
        for (key, node) in self.table.into_iter().flatten() {
            if asked.contains(&key.as_str()) {
                continue;
            }
            let near = asked.iter().map(|known| (strsim::osa_distance(known, key), *known)).min();
            let hint = near.filter(|(d, _)| *d <= 3).map(|(_, known)| format!("did you mean \"{known}\"?"));
            self.sink.borrow_mut().push(problem(&node.at, &dotted(&self.path, key), "unknown key", hint));
        }
    }
}
