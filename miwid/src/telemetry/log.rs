//! The daemon's own log (tracing) and the list of every log file it writes, so that one command rotates them all.

use std::{path::PathBuf, sync::Arc};

use super::RotatingFile;

/// One file that is written, as `miwictl logs list` shows it.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// `access`, `error` or the app's name.
    pub name: String,
    pub path: PathBuf,
    pub size_bytes: u64,
    pub backups: usize,
    pub dropped_lines: u64,
}

/// Every log file of the daemon. Cheap to clone.
#[derive(Clone, Default)]
pub struct Logs {}

impl Logs {
    pub fn register(&self, name: &str, file: Arc<RotatingFile>) {
        let _ = (name, file);
    }

    pub fn unregister(&self, name: &str) {
        let _ = name;
    }

    pub fn list(&self) -> Vec<LogFile> {
        Vec::new()
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let _ = name;
        None
    }

    /// Rotates the named file, or all; returns the new backups. Blocking: call it off the runtimes.
    pub fn rotate(&self, name: Option<&str>) -> std::io::Result<Vec<PathBuf>> {
        let _ = name;
        Ok(Vec::new())
    }

    /// What SIGUSR1 asks for: reopen each file; one that nobody moved away is rotated first.
    pub fn reopen(&self) -> std::io::Result<()> {
        Ok(())
    }
}
