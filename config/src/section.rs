//! One table of a checked tree, asked key by key.
//!
//! What does not fit its kind has been complained about already, so an answer here is simply `None` then.

use std::{cell::RefCell, net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    ByteSize, Origin, Secret,
    source::{At, Sources},
    tree::{Entries, Node, Value, join},
    values,
};

#[derive(Clone)]
pub(crate) struct Section<'a> {
    sources: &'a RefCell<Sources>,
    entries: Option<&'a Entries>,
    pub(crate) at: At,
    pub(crate) path: String,
}

// === impl Section ===

impl<'a> Section<'a> {
    pub(crate) fn root(sources: &'a RefCell<Sources>, entries: &'a Entries) -> Self {
        Self { sources, entries: Some(entries), at: At::default(), path: String::new() }
    }

    /// Whether the table stands in the file.
    pub(crate) fn present(&self) -> bool {
        self.entries.is_some()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    pub(crate) fn node(&self, key: &str) -> Option<&'a Node> {
        self.entries?.get(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'a String, &'a Node)> + use<'a> {
        self.entries.into_iter().flatten()
    }

    /// The table under `key`; absent tables answer `None` to everything.
    pub(crate) fn section(&self, key: &str) -> Self {
        let path = join(&self.path, key);
        match self.node(key) {
            Some(Node { value: Value::Table(entries), at, .. }) => {
                Self { sources: self.sources, entries: Some(entries), at: *at, path }
            }
            Some(node) => Self { sources: self.sources, entries: None, at: node.at, path },
            None => Self { sources: self.sources, entries: None, at: self.at, path },
        }
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.node(key).and_then(text_of)
    }

    pub(crate) fn texts(&self, key: &str) -> Option<Vec<String>> {
        self.list(key, text_of)
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        match self.node(key)?.value {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    pub(crate) fn integer<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        self.node(key).and_then(integer_of)
    }

    pub(crate) fn integers<T: TryFrom<i64>>(&self, key: &str) -> Option<Vec<T>> {
        self.list(key, integer_of)
    }

    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        match self.node(key)?.value {
            Value::Number(number) => Some(number),
            Value::Integer(number) => Some(number as f64),
            _ => None,
        }
    }

    pub(crate) fn duration(&self, key: &str) -> Option<Duration> {
        match &self.node(key)?.value {
            Value::Integer(number) => values::seconds(*number),
            Value::Text(text) => values::duration(text),
            _ => None,
        }
    }

    pub(crate) fn size(&self, key: &str) -> Option<ByteSize> {
        match &self.node(key)?.value {
            Value::Integer(number) => u64::try_from(*number).ok().map(ByteSize),
            Value::Text(text) => values::size(text),
            _ => None,
        }
    }

    /// A size whose key says that it counts megabytes.
    pub(crate) fn megabytes(&self, key: &str) -> Option<ByteSize> {
        self.number(key).and_then(|it| values::mebi(it, 20))
    }

    /// Absolute: relative ones start at the directory of the file that wrote them.
    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        let node = self.node(key)?;
        Some(self.sources.borrow().resolve(node.at, &text_of(node)?))
    }

    /// `path` as if it were written here.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.sources.borrow().resolve(self.at, path)
    }

    pub(crate) fn nets(&self, key: &str) -> Option<Vec<IpNet>> {
        self.list(key, |it| values::net(&text_of(it)?))
    }

    pub(crate) fn addresses(&self, key: &str) -> Option<Vec<IpAddr>> {
        self.list(key, |it| values::address(&text_of(it)?))
    }

    pub(crate) fn list<T>(&self, key: &str, read: impl Fn(&Node) -> Option<T>) -> Option<Vec<T>> {
        match &self.node(key)?.value {
            Value::List(nodes) => Some(nodes.iter().filter_map(read).collect()),
            _ => None,
        }
    }

    /// The variant whose serialized name was written.
    pub(crate) fn choice<T: Serialize + Copy>(&self, key: &str, variants: &[T]) -> Option<T> {
        let text = self.text(key)?;
        variants.iter().copied().find(|it| serde_json::to_value(it).is_ok_and(|name| name == text.as_str()))
    }

    /// A secret, or the first line of the file that `KEY_file` names.
    pub(crate) fn secret(&self, key: &str) -> Option<Secret> {
        let twin = format!("{key}_file");
        if self.has(key) && self.has(&twin) {
            let hint = format!("keep one of `{key}` and `{twin}`");
            self.error_at(&twin, format!("`{key}` and `{twin}` are both given"), Some(hint));
        }
        if let Some(text) = self.text(key) {
            return Some(Secret::new(text));
        }
        let path = self.path(&twin)?;
        match std::fs::read_to_string(&path) {
            Ok(content) => {
                self.sources.borrow_mut().secrets.push(path);
                Some(Secret::new(content.trim()))
            }
            Err(error) => {
                self.error_at(&twin, format!("cannot read {}: {error}", path.display()), None);
                None
            }
        }
    }

    pub(crate) fn origin(&self) -> Origin {
        self.sources.borrow().origin(self.at)
    }

    pub(crate) fn origin_of(&self, key: &str) -> Origin {
        let at = self.node(key).map_or(self.at, |it| it.at);
        self.sources.borrow().origin(at)
    }

    pub(crate) fn name_of_place(&self, at: At) -> String {
        let origin = self.sources.borrow().origin(at);
        format!("{}:{}", origin.file.display(), origin.line)
    }

    /// About the table itself.
    pub(crate) fn error(&self, message: impl Into<String>, hint: Option<String>) {
        self.sources.borrow_mut().error(self.at, &self.path, message, hint);
    }

    /// About the value of `key`, or the table when the key is not there.
    pub(crate) fn error_at(&self, key: &str, message: impl Into<String>, hint: Option<String>) {
        let at = self.node(key).map_or(self.at, |it| it.at);
        self.sources.borrow_mut().error(at, &join(&self.path, key), message, hint);
    }

    /// About the name `key` in this table.
    pub(crate) fn error_at_key(&self, key: &str, message: impl Into<String>, hint: Option<String>) {
        let at = self.node(key).map_or(self.at, |it| it.key_at);
        self.sources.borrow_mut().error(at, &join(&self.path, key), message, hint);
    }

    pub(crate) fn warning_at(&self, key: &str, message: impl Into<String>, hint: Option<String>) {
        let at = self.node(key).map_or(self.at, |it| it.at);
        self.sources.borrow_mut().warning(at, &join(&self.path, key), message, hint);
    }
}

pub(crate) fn text_of(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn integer_of<T: TryFrom<i64>>(node: &Node) -> Option<T> {
    match node.value {
        Value::Integer(number) => T::try_from(number).ok(),
        _ => None,
    }
}
