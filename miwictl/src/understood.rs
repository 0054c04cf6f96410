//! The one place where miwictl asks crate `config` for more than loading. Until that crate offers `show`, `diff`,
//! `json_schema` and `Problem::render`, the work is done here; then each body becomes one call.

use config::{Config, Problem};
use serde_json::Value;

use crate::error::{Error, Result};

pub(crate) fn show(config: &Config) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

pub(crate) fn render(problem: &Problem) -> String {
    let severity = format!("{:?}", problem.severity).to_lowercase();
    let place = format!("{}:{}:{}", problem.file.display(), problem.line, problem.column);
    let hint = problem.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{place}: {severity}: {}: {}{hint}", problem.key, problem.message)
}

pub(crate) fn schema() -> Result<Value> {
    Err(Error::unavailable("config schema"))
}

/// Sites that were added, removed or changed, and whether anything else did.
pub(crate) fn diff(old: &Config, new: &Config) -> Vec<proto::v1::Change> {
    let change = |kind: &str, name: &str, action: &str| proto::v1::Change {
        kind: kind.to_owned(),
        name: name.to_owned(),
        action: action.to_owned(),
    };
    let mut changes = Vec::new();
    for (name, backend) in &new.backends {
        match old.backends.get(name) {
            None => changes.push(change("site", name, "added")),
            Some(before) if before != backend => changes.push(change("site", name, "changed")),
            Some(_) => {}
        }
    }
    let gone = old.backends.keys().filter(|name| !new.backends.contains_key(*name));
    changes.extend(gone.map(|name| change("site", name, "removed")));
    if old.server != new.server {
        changes.push(change("setting", "server", "changed"));
    }
    changes
}
