//! What operators decided against the configuration (stopped, scaled), kept over restarts of the daemon. The
//! configuration stays the truth about everything else, and the status shows each override.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Override {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) stopped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) instances: Option<u32>,
    /// What `deploy` brought last, and what a rollback goes back to, the latest at the end; `null` is what the
    /// configuration names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) release: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) previous: Vec<Option<String>>,
}

/// All overrides, by app.
#[derive(Clone, Debug)]
pub(super) struct Overrides {
    path: PathBuf,
    apps: BTreeMap<String, Override>,
    /// Rises with every change; `written` is the one on disk.
    version: u64,
    written: Arc<Mutex<u64>>,
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
        Self { path, apps, version: 0, written: Arc::default() }
    }

    pub(super) fn of(&self, app: &str) -> Override {
        self.apps.get(app).cloned().unwrap_or_default()
    }

    /// True when this changed something that must be written.
    pub(super) fn put(&mut self, app: &str, wanted: Override) -> bool {
        let before = if wanted == Override::default() {
            self.apps.remove(app)
        } else {
            self.apps.insert(app.into(), wanted.clone())
        };
        let changed = before.unwrap_or_default() != wanted;
        self.version += u64::from(changed);
        changed
    }

    /// Writes them beside and renames, so that a crash leaves the old or the new. Blocking. Writers come in any order:
    /// one that is older than what was written has nothing to say.
    pub(super) fn save(&self) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written >= self.version {
            return Ok(());
        }
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let fresh = self.path.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(&self.apps)?)?;
        fs::File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        *written = self.version;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_survive_and_a_cleared_one_leaves_no_trace() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut overrides = Overrides::load(directory.path());
        let shop = Override {
            stopped: true,
            instances: Some(3),
            release: Some("20261127-1".into()),
            previous: vec![None, Some("20261126-1".into())],
        };
        overrides.put("shop", shop.clone());
        overrides.put("blog", Override::default());
        overrides.save().expect("saved");
        let again = Overrides::load(directory.path());
        assert_eq!(again.of("shop"), shop);
        assert_eq!(again.apps.len(), 1);
    }
}
