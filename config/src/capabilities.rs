//! What the binary that runs a configuration can do. A key whose feature is absent is refused, never ignored.

use crate::{
    source::Sources,
    tree::{Entries, Node, Value, join},
};

/// What the binary that will run this configuration can do.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    /// Keys whose feature is absent, with what to say: "not available in this version".
    ///
    /// Dotted; `*` stands for one segment (a quoted host is one), a trailing `**` for all that follow, and for the table
    /// itself when it is empty. `key=value` refuses only that value.
    pub unavailable: Vec<(&'static str, String)>,
}

pub(crate) fn refuse(capabilities: &Capabilities, sources: &mut Sources, entries: &Entries) {
    walk(capabilities, sources, entries, &mut Vec::new(), "");
}

fn walk<'a>(
    capabilities: &Capabilities,
    sources: &mut Sources,
    entries: &'a Entries,
    segments: &mut Vec<&'a str>,
    path: &str,
) {
    for (name, node) in entries {
        segments.push(name);
        let path = join(path, name);
        let refusal = capabilities.unavailable.iter().find(|(pattern, _)| matches(pattern, segments, node));
        match (refusal, &node.value) {
            (Some((pattern, message)), _) => sources.error(node.key_at, &path, said(pattern, name, message), None),
            (None, Value::Table(inner)) => walk(capabilities, sources, inner, segments, &path),
            _ => {}
        }
        segments.pop();
    }
}

fn said(pattern: &str, name: &str, message: &str) -> String {
    match pattern.split_once('=') {
        Some((_, value)) => format!("`{name} = {value}`: {message}"),
        None => format!("`{name}`: {message}"),
    }
}

/// Whether the key with these segments is what the pattern means.
fn matches(pattern: &str, segments: &[&str], node: &Node) -> bool {
    let (keys, value) = match pattern.split_once('=') {
        Some((keys, value)) => (keys, Some(value)),
        None => (pattern, None),
    };
    let empty = matches!(&node.value, Value::Table(entries) if entries.is_empty());
    keys_match(keys, segments, empty) && value.is_none_or(|it| scalar(node).is_some_and(|written| written == it))
}

fn keys_match(pattern: &str, segments: &[&str], empty_table: bool) -> bool {
    let mut segments = segments.iter();
    for wanted in pattern.split('.') {
        if wanted == "**" {
            return segments.len() > 0 || empty_table;
        }
        match segments.next() {
            Some(segment) if wanted == "*" || wanted == *segment => {}
            _ => return false,
        }
    }
    segments.len() == 0
}

fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Flag(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::keys_match;

    fn check(pattern: &str, segments: &[&str], empty_table: bool, expected: bool) {
        assert_eq!(keys_match(pattern, segments, empty_table), expected, "{pattern} {segments:?}");
    }

    #[test]
    fn patterns_match_whole_segments() {
        check("server.user", &["server", "user"], false, true);
        check("server.user", &["server"], false, false);
        check("server.user", &["server", "user", "x"], false, false);
        check("backends.*.sticky", &["backends", "a.b.c", "sticky"], false, true);
        check("ssl.**", &["ssl"], false, false);
        check("ssl.**", &["ssl"], true, true);
        check("ssl.**", &["ssl", "cert"], false, true);
        check("ssl.**", &["backends", "a", "ssl"], true, false);
        check("backends.*.process.probes.**", &["backends", "a", "process", "probes", "liveness"], false, true);
    }
}
