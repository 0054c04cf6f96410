//! Files that a start depends on. A failure that will not mend by waiting is tried again as soon as one of them changes,
//! and not only at the next turn of its slow cadence.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use config::Process;

use super::spec::LaunchSpec;

/// What tells one version of a file from the next.
type Stamp = Option<(SystemTime, u64, u64)>;

#[derive(Debug)]
pub(super) struct Watch {
    paths: Vec<PathBuf>,
    /// As first seen; `None` until then.
    seen: Mutex<Option<Vec<Stamp>>>,
}

impl Watch {
    /// The program, its arguments as far as they are files, the directory and the env file.
    pub(super) fn new(spec: &LaunchSpec, process: Option<&Process>) -> Self {
        let arguments = spec.argv.iter().map(|it| spec.working_dir.join(it));
        let env_file = process.and_then(|it| it.env_file.clone());
        let paths = arguments.chain([spec.working_dir.clone()]).chain(env_file).collect();
        Self { paths, seen: Mutex::default() }
    }

    /// Whether anything is different from when this was first asked. Blocking.
    pub(super) fn has_changed(&self) -> bool {
        let now: Vec<Stamp> = self.paths.iter().map(|it| stamp(it)).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.get_or_insert_with(|| now.clone()) != now
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
        let watch =
            |paths: &[&Path]| Watch { paths: paths.iter().map(PathBuf::from).collect(), seen: Mutex::default() };
        let missing = watch(&[&path]);
        assert!(!missing.has_changed());
        std::fs::write(&path, "one").expect("written");
        assert!(missing.has_changed());
        let present = watch(&[&path]);
        assert!(!present.has_changed());
        assert!(!present.has_changed());
        std::fs::write(&path, "longer").expect("written");
        assert!(present.has_changed());
    }
}
