//! Compares a tree with the table of keys and says everything that does not fit: unknown keys, wrong types, values that
//! cannot be. What several keys mean together is for the readers.

use crate::{
    keys::{Kind, Table},
    source::Sources,
    tree::{Entries, Node, Value, join},
    values,
};

/// Why a value does not fit its kind.
enum Misfit {
    Type,
    Value(String, Option<String>),
}

pub(crate) fn check(sources: &mut Sources, table: &'static Table, entries: &mut Entries, path: &str) {
    for (name, node) in entries.iter_mut() {
        let path = join(path, name);
        match table.key(name) {
            Some(key) => node_fits(sources, &key.kind, node, &path),
            None => unknown(sources, table, name, node, &path),
        }
    }
}

fn unknown(sources: &mut Sources, table: &Table, name: &str, node: &mut Node, path: &str) {
    let hint = match nearest(name, table.keys().map(|it| it.name)) {
        Some(key) => Some(format!("did you mean `{key}`?")),
        None => Some(format!("known keys: {}", table.keys().map(|it| it.name).collect::<Vec<_>>().join(", "))),
    };
    sources.error(node.key_at, path, format!("unknown key `{name}`"), hint);
    node.value = Value::Broken;
}

/// The known name that is most like `name`, if one is like it at all.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    known
        .map(|it| (strsim::jaro_winkler(&name, it), it))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, it)| it)
}

fn node_fits(sources: &mut Sources, kind: &'static Kind, node: &mut Node, path: &str) {
    if matches!(node.value, Value::Broken) {
        return;
    }
    coerce(kind, node);
    match (kind, &mut node.value) {
        (Kind::Table(table), Value::Table(entries)) => check(sources, table, entries, path),
        (Kind::Map(inner), Value::Table(entries)) => {
            for (name, node) in entries.iter_mut() {
                node_fits(sources, inner, node, &join(path, name));
            }
        }
        (Kind::List(inner), Value::List(nodes)) => {
            for (i, node) in nodes.iter_mut().enumerate() {
                node_fits(sources, inner, node, &format!("{path}[{i}]"));
            }
        }
        (Kind::Either(kinds), value) => either_fits(sources, kinds, node_table(value), node, path),
        (_, value) => {
            if let Err(misfit) = judge(kind, value) {
                complain(sources, &[kind], misfit, node, path);
            }
        }
    }
}

/// Whether the value is a table: then only the kind for tables is meant.
fn node_table(value: &Value) -> bool {
    matches!(value, Value::Table(_))
}

fn either_fits(sources: &mut Sources, kinds: &'static [Kind], is_table: bool, node: &mut Node, path: &str) {
    if is_table && let Some(kind) = kinds.iter().find(|it| matches!(it, Kind::Table(_) | Kind::Map(_))) {
        return node_fits(sources, kind, node, path);
    }
    let mut worst = Misfit::Type;
    for kind in kinds {
        match judge(kind, &node.value) {
            Ok(()) => return,
            Err(Misfit::Type) => {}
            Err(value) => worst = value,
        }
    }
    complain(sources, &kinds.iter().collect::<Vec<_>>(), worst, node, path);
}

/// A number or a flag that came out of a variable is text at first.
fn coerce(kind: &Kind, node: &mut Node) {
    let Value::Text(text) = &node.value else { return };
    if !node.expanded {
        return;
    }
    let value = match kind {
        Kind::Integer { .. } => text.trim().parse().ok().map(Value::Integer),
        Kind::Number { .. } => text.trim().parse().ok().map(Value::Number),
        Kind::Flag => text.trim().parse().ok().map(Value::Flag),
        Kind::Either(kinds) => {
            if kinds.iter().any(|it| matches!(it, Kind::Flag)) && !kinds.iter().any(|it| matches!(it, Kind::Text)) {
                text.trim().parse().ok().map(Value::Flag)
            } else {
                None
            }
        }
        _ => None,
    };
    if let Some(value) = value {
        node.value = value;
    }
}

fn complain(sources: &mut Sources, kinds: &[&Kind], misfit: Misfit, node: &mut Node, path: &str) {
    match misfit {
        Misfit::Type => {
            let mut wanted: Vec<_> = kinds.iter().map(|it| it.describe()).collect();
            wanted.dedup();
            let message = format!("expected {}, found {}", wanted.join(" or "), found(&node.value));
            let hint = type_hint(kinds, &node.value);
            sources.error(node.at, path, message, hint);
        }
        Misfit::Value(message, hint) => sources.error(node.at, path, message, hint),
    }
    node.value = Value::Broken;
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Text(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Number(_) => "a float",
        Value::Flag(_) => "a boolean",
        Value::Date(_) => "a date",
        Value::List(_) => "an array",
        Value::Table(_) => "a table",
        Value::Broken => "something broken",
    }
}

fn type_hint(kinds: &[&Kind], value: &Value) -> Option<String> {
    let wants = |test: fn(&Kind) -> bool| kinds.iter().any(|it| test(it));
    match value {
        Value::Text(text) if wants(|it| matches!(it, Kind::Flag)) && matches!(text.as_str(), "true" | "false") => {
            Some(format!("write {text} without quotes"))
        }
        Value::Text(text) if wants(|it| matches!(it, Kind::Integer { .. })) && text.parse::<i64>().is_ok() => {
            Some(format!("write {text} without quotes"))
        }
        Value::Text(text) if wants(|it| matches!(it, Kind::List(_))) => Some(format!("write [{text:?}]")),
        Value::Integer(number) if wants(Kind::is_text) => Some(format!("write \"{number}\" with quotes")),
        Value::Number(number) if wants(Kind::is_text) => Some(format!("write \"{number}\" with quotes")),
        Value::Date(date) if wants(Kind::is_text) => Some(format!("write \"{date}\" with quotes")),
        _ => None,
    }
}

fn judge(kind: &Kind, value: &Value) -> Result<(), Misfit> {
    match (kind, value) {
        (Kind::Flag, Value::Flag(_)) => Ok(()),
        (Kind::Integer { min, max }, Value::Integer(number)) => {
            within(min <= number && number <= max, || format!("{number} is not between {min} and {max}"))
        }
        (Kind::Number { min, max }, Value::Integer(number)) => {
            let number = *number as f64;
            within(*min <= number && number <= *max, || format!("{number} is not between {min} and {max}"))
        }
        (Kind::Number { min, max }, Value::Number(number)) => {
            within(min <= number && number <= max, || format!("{number} is not between {min} and {max}"))
        }
        (Kind::Duration { min_millis }, Value::Integer(number)) => {
            duration_fits(values::seconds(*number), *min_millis, &number.to_string())
        }
        (Kind::Duration { min_millis }, Value::Text(text)) => duration_fits(values::duration(text), *min_millis, text),
        (Kind::Size { min }, Value::Integer(number)) => {
            size_fits(u64::try_from(*number).ok(), *min, &number.to_string())
        }
        (Kind::Size { min }, Value::Text(text)) => size_fits(values::size(text).map(|it| it.0), *min, text),
        (Kind::Signal, Value::Integer(number)) => {
            within((1..=64).contains(number), || format!("{number} is not a signal: they are 1 to 64"))
        }
        (Kind::Choice(choices), Value::Text(text)) => choice_fits(choices, text),
        (kind, Value::Text(text)) if kind.is_text() => text_fits(kind, text),
        _ => Err(Misfit::Type),
    }
}

fn within(fits: bool, message: impl FnOnce() -> String) -> Result<(), Misfit> {
    if fits { Ok(()) } else { Err(Misfit::Value(message(), None)) }
}

fn misfit(message: String, hint: &str) -> Misfit {
    Misfit::Value(message, Some(hint.to_owned()))
}

fn duration_fits(duration: Option<std::time::Duration>, min_millis: u64, written: &str) -> Result<(), Misfit> {
    match duration {
        None => Err(misfit(
            format!("{written:?} is not a duration"),
            "write seconds as a number, or \"200ms\", \"30s\", \"5m\", \"1h\"",
        )),
        Some(it) if it.as_millis() < u128::from(min_millis) => {
            Err(misfit("this duration must not be 0".to_owned(), "leave the key out for the default"))
        }
        Some(_) => Ok(()),
    }
}

fn size_fits(size: Option<u64>, min: u64, written: &str) -> Result<(), Misfit> {
    match size {
        None => {
            Err(misfit(format!("{written:?} is not a size"), "write bytes as a number, or \"64KB\", \"10MB\", \"1GB\""))
        }
        Some(it) if it < min => Err(Misfit::Value(format!("{it} bytes are too few: at least {min}"), None)),
        Some(_) => Ok(()),
    }
}

fn choice_fits(choices: &[&str], text: &str) -> Result<(), Misfit> {
    if choices.contains(&text) {
        return Ok(());
    }
    let hint = match nearest(text, choices.iter().copied()) {
        Some(choice) => format!("did you mean \"{choice}\"?"),
        None => format!("one of: {}", choices.join(", ")),
    };
    Err(Misfit::Value(format!("{text:?} is not one of the choices"), Some(hint)))
}

fn text_fits(kind: &Kind, text: &str) -> Result<(), Misfit> {
    let said = |result: Result<(), (&str, &str)>| {
        result.map_err(|(message, hint)| misfit(format!("{text:?}: {message}"), hint))
    };
    let so = |fits: bool, what: &str, hint: &str| {
        if fits { Ok(()) } else { Err(misfit(format!("{text:?} is not {what}"), hint)) }
    };
    match kind {
        Kind::Address => so(
            values::address(text).is_some(),
            "an IP address",
            "write \"127.0.0.1\" or \"[::1]\"; ports have keys of their own",
        ),
        Kind::Socket => so(
            values::socket(text).is_some(),
            "an address and a port",
            "write \"127.0.0.1:9180\", \"[::1]:9180\" or \"off\"",
        ),
        Kind::Net => so(
            values::net(text).is_some(),
            "an address range",
            "write \"192.168.1.0/24\", \"2001:db8::/32\" or one address",
        ),
        Kind::Upstream => said(values::upstream(text).map(drop)),
        Kind::Host => said(values::host(text).map(drop)),
        Kind::Signal => so(values::signal(text).is_some(), "a signal", "write \"SIGTERM\", \"TERM\" or 15"),
        Kind::WebUrl => so(
            (text.starts_with("http://") || text.starts_with("https://"))
                && text.len() > 8
                && !text.contains(char::is_whitespace),
            "an address of the web",
            "it begins with `https://` or `http://`",
        ),
        Kind::HttpPath => so(
            text.starts_with('/') && text.bytes().all(|it| it.is_ascii_graphic()),
            "a path",
            "it begins with `/` and has no spaces",
        ),
        Kind::HeaderValue => so(values::header_value(text), "a header value", "no line ends or control characters"),
        Kind::Path => so(!text.is_empty() && !text.contains('\0'), "a path", "leave the key out for the default"),
        _ => so(!text.contains('\0'), "text without NUL", "NUL cannot be handed to programs or files"),
    }
}

// === impl Kind ===

impl Kind {
    /// Whether values of it are written as strings.
    fn is_text(&self) -> bool {
        use Kind::*;
        matches!(
            self,
            Text | Secret
                | Path
                | Choice(_)
                | Address
                | Socket
                | Net
                | Upstream
                | WebUrl
                | HttpPath
                | Host
                | Signal
                | HeaderValue
        )
    }

    /// As it stands in a message: "a boolean".
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Flag => "a boolean".to_owned(),
            Self::Integer { .. } => "an integer".to_owned(),
            Self::Number { .. } => "a number".to_owned(),
            Self::Size { .. } => "a size".to_owned(),
            Self::Duration { .. } => "a duration".to_owned(),
            Self::List(_) => "an array".to_owned(),
            Self::Map(_) | Self::Table(_) => "a table".to_owned(),
            Self::Either(kinds) => kinds.iter().map(Self::describe).collect::<Vec<_>>().join(" or "),
            _ => "a string".to_owned(),
        }
    }
}
