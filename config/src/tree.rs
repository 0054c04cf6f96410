//! A TOML text as a tree whose every node knows where it was written.
//!
//! Variables are put in here, so nothing above ever sees a `${NAME}`.

use indexmap::IndexMap;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::source::{At, Sources};

pub(crate) type Entries = IndexMap<String, Node>;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Where the value is; for a table, where its name is.
    pub(crate) at: At,
    /// Where the key is.
    pub(crate) key_at: At,
    /// Came out of a variable: then `"8080"` may be a number.
    pub(crate) expanded: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Number(f64),
    Flag(bool),
    Date(String),
    List(Vec<Node>),
    Table(Entries),
    /// Already complained about.
    Broken,
}

/// Reads one text. What can be understood of a broken one is returned all the same, so that all problems are found.
pub(crate) fn parse(sources: &mut Sources, file: usize) -> Entries {
    let text = sources.text(file).to_owned();
    let (table, errors) = DeTable::parse_recoverable(&text);
    let mut last = None;
    for error in errors {
        let at = At { file, byte: error.span().map_or(0, |it| it.start) };
        let place = sources.origin(at);
        // One mistake often breaks the parser several times on its line; the first tells the most.
        if last.replace(place.line) != Some(place.line) {
            sources.error(at, "", error.message().to_owned(), None);
            sources.doubtful.push((place.file, place.line, doubtful_until(&text, place.line)));
        }
    }
    Growth { sources, file }.table(table.get_ref(), "")
}

/// A broken line is doubtful; after a broken header, so are all keys up to the next one.
fn doubtful_until(text: &str, line: u32) -> u32 {
    let header = |it: &str| it.trim_start().starts_with('[');
    let mut lines = (1..).zip(text.lines()).skip_while(|it| it.0 < line);
    match lines.next() {
        Some((_, first)) if header(first) => lines.find(|it| header(it.1)).map_or(u32::MAX, |it| it.0 - 1),
        _ => line,
    }
}

struct Growth<'a> {
    sources: &'a mut Sources,
    file: usize,
}

// === impl Growth ===

impl Growth<'_> {
    fn table(&mut self, table: &DeTable<'_>, path: &str) -> Entries {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
            .into_iter()
            .map(|(key, value)| {
                let name = key.get_ref().to_string();
                let path = join(path, &name);
                let key_at = At { file: self.file, byte: key.span().start };
                (name, self.node(value, key_at, &path))
            })
            .collect()
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>, key_at: At, path: &str) -> Node {
        let mut at = At { file: self.file, byte: value.span().start };
        let mut expanded = false;
        let value = match value.get_ref() {
            DeValue::String(text) => match expand(text, |name| std::env::var(name).ok()) {
                Ok(result) => {
                    expanded = result != **text;
                    Value::Text(result)
                }
                Err(error) => self.broken(at, path, error.message(), Some(error.hint())),
            },
            DeValue::Integer(it) => match i64::from_str_radix(it.as_str(), it.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => self.broken(at, path, format!("{it} is too big a number"), None),
            },
            DeValue::Float(it) => it.as_str().parse().map_or(Value::Broken, Value::Number),
            DeValue::Boolean(it) => Value::Flag(*it),
            DeValue::Datetime(it) => Value::Date(it.to_string()),
            DeValue::Array(list) => Value::List(
                list.iter().enumerate().map(|(i, it)| self.node(it, key_at, &format!("{path}[{i}]"))).collect(),
            ),
            DeValue::Table(table) => {
                at = key_at;
                Value::Table(self.table(table, path))
            }
        };
        Node { value, at, key_at, expanded }
    }

    fn broken(&mut self, at: At, path: &str, message: String, hint: Option<String>) -> Value {
        self.sources.error(at, path, message, hint);
        Value::Broken
    }
}

/// What is wrong with a variable in a string.
#[derive(Debug, PartialEq, Eq)]
enum Unexpandable {
    Unset(String),
    Malformed,
}

impl Unexpandable {
    fn message(&self) -> String {
        match self {
            Self::Unset(name) => format!("the environment variable `{name}` is not set"),
            Self::Malformed => "`${` does not begin the name of a variable".to_owned(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Unset(name) => format!("set it, or give a default: `${{{name}:-value}}`"),
            Self::Malformed => "write `${NAME}` or `${NAME:-value}`; a plain `${` is written `$${`".to_owned(),
        }
    }
}

/// Puts variables in: `${NAME}`, `${NAME:-default}`; `$${` stands for `${`.
fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, Unexpandable> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            result.push_str(&rest[..at]);
            result.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        result.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or(Unexpandable::Malformed)?;
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        let well_named = name.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_')
            && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_');
        if !well_named {
            return Err(Unexpandable::Malformed);
        }
        match lookup(name).filter(|it| default.is_none() || !it.is_empty()).or_else(|| default.map(str::to_owned)) {
            Some(value) => result.push_str(&value),
            None => return Err(Unexpandable::Unset(name.to_owned())),
        }
        rest = &inner[end + 1..];
    }
    result.push_str(rest);
    Ok(result)
}

/// `backends` and `shop.example.com` make `backends."shop.example.com"`.
pub(crate) fn join(path: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_' || it == b'-');
    let name = if bare { name.to_owned() } else { format!("{name:?}") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, Unexpandable>) {
        let lookup = |name: &str| match name {
            "PORT" => Some("3000".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        assert_eq!(expand(text, lookup), expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn variables_are_put_in() {
        check("plain $ text", Ok("plain $ text"));
        check("http://h:${PORT}/", Ok("http://h:3000/"));
        check("${NONE:-80}", Ok("80"));
        check("${NONE:-}", Ok(""));
        check("${EMPTY:-x}", Ok("x"));
        check("${EMPTY}", Ok(""));
        check("$${PORT}", Ok("${PORT}"));
        check("a$${b}${PORT}", Ok("a${b}3000"));
        check("${NONE}", Err(Unexpandable::Unset("NONE".into())));
        check("${PORT", Err(Unexpandable::Malformed));
        check("${}", Err(Unexpandable::Malformed));
        check("${a b}", Err(Unexpandable::Malformed));
    }
}
