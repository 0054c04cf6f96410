//! What operators decided against the configuration (stopped, scaled), kept over restarts of the daemon. The
//! configuration stays the truth about everything else, and the status shows each override.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Override {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) stopped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) instances: Option<u32>,
}

/// All overrides, by app.
#[derive(Clone, Debug)]
pub(super) struct Overrides {
    path: PathBuf,
    apps: BTreeMap<String, Override>,
}

impl Overrides {
    /// Reads them; a file that cannot be understood is left alone and said so, the apps run as configured.
    pub(super) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("apps.json");
        let apps = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "operator overrides are unreadable and ignored");
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        Self { path, apps }
    }

    pub(super) fn of(&self, app: &str) -> Override {
        self.apps.get(app).cloned().unwrap_or_default()
    }

    pub(super) fn put(&mut self, app: &str, wanted: Override) {
        if wanted == Override::default() {
            self.apps.remove(app);
        } else {
            self.apps.insert(app.into(), wanted);
        }
    }

    /// Writes them beside and renames, so that a crash leaves the old or the new. Blocking.
    pub(super) fn save(&self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let fresh = self.path.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(&self.apps)?)?;
        fs::File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_survive_and_a_cleared_one_leaves_no_trace() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut overrides = Overrides::load(directory.path());
        overrides.put("shop", Override { stopped: true, instances: Some(3) });
        overrides.put("blog", Override::default());
        overrides.save().expect("saved");
        let again = Overrides::load(directory.path());
        assert_eq!(again.of("shop"), Override { stopped: true, instances: Some(3) });
        assert_eq!(again.apps.len(), 1);
    }
}
