//! What a reload does about certificates: which have changed in their files, and whether any is only a stand-in.

use super::Change;
use crate::{snapshot::Snapshot, telemetry::Readiness, tls::Terminator};

/// What people read about it in readiness.
const SOURCE: &str = "certificates";

/// What differs in content, whatever the configuration says. Without HTTPS there is nothing to compare.
pub(super) fn changes(old: Option<&Terminator>, new: Option<&Terminator>) -> Vec<Change> {
    let contents = |it: Option<&Terminator>| it.map(Terminator::contents).unwrap_or_default();
    let (old, new) = (contents(old), contents(new));
    let change =
        |name: &str, action: &str| Change { kind: "certificate".into(), name: name.into(), action: action.into() };
    let mut changes = Vec::new();
    for (name, content) in &new {
        match old.get(name) {
            None => changes.push(change(name, "added")),
            Some(before) if before != content => changes.push(change(name, "changed")),
            Some(_) => {}
        }
    }
    changes.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| change(name, "removed")));
    changes
}

/// Says in readiness, and once in the log, that a certificate is one that no client trusts.
pub fn tell_stand_ins(snapshot: &Snapshot, readiness: &Readiness) {
    let reason = snapshot.tls.as_ref().and_then(|it| it.degraded());
    let is_news = reason.as_ref().is_some_and(|it| !readiness.reasons().iter().any(|known| known.ends_with(it)));
    if let Some(reason) = reason.as_ref().filter(|_| is_news) {
        tracing::warn!(target: "tls", "{reason}");
    }
    readiness.degrade(SOURCE, reason);
}
