//! `watch`: an app whose files have changed is restarted, once they have been quiet for a second. Looking is a walk with an
//! end; what tools make (`node_modules`, `.git`, byte code, logs) does not count.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{managed::App, supervisor::Core};

/// Files that are looked at; whoever has more is told about the first so many.
const FILES_MAX: usize = 20_000;
const LEFT_OUT: [&str; 5] = ["node_modules", "__pycache__", "venv", "target", "logs"];

/// What was seen of an app's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    /// What runs now was started with these.
    ran: Option<u64>,
    /// As they were a second ago.
    last: Option<u64>,
}

impl Files {
    /// An attempt begins with what was seen before.
    pub(super) fn started(&mut self, seen: Option<u64>) {
        self.ran = seen;
    }

    /// True: they have changed and are quiet again.
    fn see(&mut self, now: u64) -> bool {
        let quiet = self.last.replace(now) == Some(now);
        quiet && *self.ran.get_or_insert(now) != now
    }
}

/// One number for all files below `directory`: another one when any of them has changed, come or gone. Blocking.
pub(super) fn fingerprint(directory: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut waiting = vec![directory.to_owned()];
    let mut left = FILES_MAX;
    while let Some(directory) = waiting.pop() {
        let mut entries: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries.iter().filter(|entry| counts(&entry.file_name().to_string_lossy())) {
            let Some(rest) = left.checked_sub(1) else { return hasher.finish() };
            left = rest;
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                waiting.push(entry.path());
            } else {
                (entry.path(), found.mtime(), found.mtime_nsec(), found.len(), found.ino()).hash(&mut hasher);
            }
        }
    }
    hasher.finish()
}

fn counts(name: &str) -> bool {
    let made = name.ends_with(".log") || name.ends_with(".pyc") || name.ends_with('~');
    !name.starts_with('.') && !made && !LEFT_OUT.contains(&name)
}

// === impl App ===

impl App {
    /// The directory to look at, when that is asked for.
    pub(super) fn watched(&self) -> Option<(String, PathBuf)> {
        let process = self.loaded.process.as_ref().filter(|process| process.watch)?;
        let runs = !self.stopped && !self.idle && !self.leaving && !self.runners.is_empty();
        runs.then(|| (self.name.clone(), process.working_dir.clone()))
    }
}

// === impl Core ===

impl Core {
    pub(super) fn files_seen(&mut self, name: &str, fingerprint: u64) {
        let Some(app) = self.apps.get_mut(name) else { return };
        if !app.files.see(fingerprint) || app.operation.is_some() {
            return;
        }
        app.files.started(Some(fingerprint));
        self.outside.events.emit("app.changed", name, "its files have changed: it is restarted");
        self.renew(name, None, "miwid, because its files have changed".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_has_been_quiet_for_a_look() {
        let mut files = Files::default();
        // First look, no change, a change, another one, quiet at last.
        let seen: Vec<bool> = [1, 1, 2, 3, 3].into_iter().map(|it| files.see(it)).collect();
        assert_eq!(seen, [false, false, false, false, true]);
    }

    #[test]
    fn what_tools_make_does_not_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("inside")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("src/server.js", "1");
        let before = fingerprint(directory.path());
        for name in ["node_modules/x.js", ".git/HEAD", "src/x.pyc", "out.log"] {
            write(name, "x");
        }
        assert_eq!(fingerprint(directory.path()), before);
        write("src/server.js", "22");
        assert_ne!(fingerprint(directory.path()), before);
    }
}
