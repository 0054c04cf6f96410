//! The only writer of the current snapshot.

use std::path::PathBuf;
use std::sync::Arc;

/// What is asked of a reload.
#[derive(Clone, Debug, Default)]
pub struct Reload {
    /// Another file from now on.
    pub path: Option<PathBuf>,
    pub dry_run: bool,
    pub allow_failing_apps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    Unchanged,
    Rejected,
    Partial,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `site`, `route`, `app`, `upstream`, `listener`, `setting` ...
    pub kind: String,
    pub name: String,
    /// `added`, `removed`, `changed`, `needs-restart` ...
    pub action: String,
}

#[derive(Clone, Debug)]
pub struct Report {
    pub outcome: Outcome,
    pub config_generation: u64,
    pub changes: Vec<Change>,
    pub problems: Vec<config::Problem>,
}

/// Cheap to clone; reloads queue behind one another.
#[derive(Clone)]
pub struct Reloader {}

impl Reloader {
    pub async fn reload(&self, what: Reload) -> Report {
        let _ = what;
        Report { outcome: Outcome::Unchanged, config_generation: 0, changes: Vec::new(), problems: Vec::new() }
    }

    pub fn config(&self) -> Arc<config::Config> {
        unreachable!("filled in by the reload room")
    }

    pub fn generation(&self) -> u64 {
        0
    }
}
