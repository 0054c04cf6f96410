//! Files that a start depends on. A failure that will not mend by waiting is tried again as soon as one of them changes,
//! and not only at the next turn of its slow cadence.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use config::Process;

use super::{changes, spec::LaunchSpec};

/// What tells one version of a file from the next.
type Stamp = Option<(SystemTime, u64, u64)>;

#[derive(Debug)]
pub(super) struct Watch {
    files: Vec<(PathBuf, Stamp)>,
    /// All files of an app that is restarted when they change, as they were before it started.
    pub(super) fingerprint: Option<u64>,
}

impl Watch {
    /// The program, its arguments as far as they are files, the directory and the env file, as they are now. Blocking.
    pub(super) fn new(spec: &LaunchSpec, process: Option<&Process>) -> Self {
        let arguments = spec.argv.iter().map(|it| spec.working_dir.join(it));
        let env_file = process.and_then(|it| it.env_file.clone());
        let copied =
            spec.base.iter().flat_map(|base| base.copies.iter().chain(&base.archive).map(|(_, from)| from.clone()));
        let whole = process.is_some_and(|it| it.watch).then(|| changes::fingerprint(&spec.working_dir));
        let stamped = Self::of(arguments.chain([spec.working_dir.clone()]).chain(env_file).chain(copied));
        Self { fingerprint: whole, ..stamped }
    }

    fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let stamped = |path: PathBuf| {
            let stamp = stamp(&path);
            (path, stamp)
        };
        Self { files: paths.into_iter().map(stamped).collect(), fingerprint: None }
    }

    /// Whether any of them is different now. Blocking.
    pub(super) fn has_changed(&self) -> bool {
        self.files.iter().any(|(path, seen)| stamp(path) != *seen)
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = path.metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_appears_or_is_replaced_is_a_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("app");
        let missing = Watch::of([path.clone()]);
        assert!(!missing.has_changed());
        std::fs::write(&path, "one").expect("written");
        assert!(missing.has_changed());
        let present = Watch::of([path.clone()]);
        assert!(!present.has_changed());
        assert!(!present.has_changed());
        std::fs::write(&path, "longer").expect("written");
        assert!(present.has_changed());
    }
}
