//! Versions of certificates: written anew each time, then named by one file that is replaced in one step.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    disk,
    lock::{self, Lock},
    names::safe,
    record::{Meta, Record},
};

/// Versions of a certificate that are kept; the older ones are for the day when the newest cannot be read.
const KEPT: usize = 3;

/// A certificate with its key, as it lies on the disk.
#[derive(Clone)]
pub(in crate::tls) struct Bundle {
    pub(in crate::tls) key_pem: String,
    pub(in crate::tls) chain_pem: String,
    pub(in crate::tls) meta: Meta,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bundle({:?})", self.meta)
    }
}

/// Everything about one certificate.
#[derive(Debug, Default)]
pub(in crate::tls) struct Loaded {
    pub(in crate::tls) record: Record,
    /// Name and content of the version that counts.
    pub(in crate::tls) current: Option<(String, Bundle)>,
    /// What an operator should know.
    pub(in crate::tls) notes: Vec<String>,
}

/// Blocking; cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::tls) struct Store {
    root: PathBuf,
}

impl Store {
    /// Touches nothing yet.
    pub(in crate::tls) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the root, or judges the one that is there.
    pub(super) fn prepare(&self) -> io::Result<()> {
        disk::private_directory(&self.root)?;
        disk::judge_directory(&self.root)
    }

    fn certs(&self) -> PathBuf {
        self.root.join("certs")
    }

    fn place(&self, name: &str) -> PathBuf {
        self.certs().join(safe(name))
    }

    /// Whether there is room and leave to write, found out before anybody is asked for anything.
    pub(in crate::tls) fn probe(&self) -> io::Result<()> {
        self.prepare()?;
        // Others may do the same right now.
        let path = self.root.join(format!(".probe-{:08x}", fastrand::u32(..)));
        let written = disk::write_new(&path, &[b'x'; 16 << 10]);
        disk::remove_file(&path)?;
        written
    }

    pub(in crate::tls) fn try_lock(&self, name: &str) -> io::Result<Option<Lock>> {
        self.prepare()?;
        lock::try_lock(&self.root, name)
    }

    /// All that the store holds, whatever state it is in. An unsafe root is an error, a bad version only a note.
    pub(in crate::tls) fn load(&self, usable: &dyn Fn(&Bundle) -> Result<(), String>) -> io::Result<Vec<Loaded>> {
        match fs::symlink_metadata(&self.root) {
            Ok(_) => disk::judge_directory(&self.root)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let entries = match fs::read_dir(self.certs()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found: Vec<PathBuf> = entries.filter_map(|it| Some(it.ok()?.path())).collect();
        found.sort();
        Ok(found.iter().filter(|it| it.is_dir() && !it.is_symlink()).map(|it| self.load_from(it, usable)).collect())
    }

    pub(in crate::tls) fn load_one(&self, name: &str, usable: &dyn Fn(&Bundle) -> Result<(), String>) -> Loaded {
        self.load_from(&self.place(name), usable)
    }

    /// The version that `current` names, else the newest that can be used. What cannot be used is set aside.
    fn load_from(&self, place: &Path, usable: &dyn Fn(&Bundle) -> Result<(), String>) -> Loaded {
        let mut loaded = Loaded::default();
        if let Ok((text, _)) = disk::read_private(&place.join("state.json")) {
            loaded.record = serde_json::from_str(&text).unwrap_or_default();
        }
        let named = disk::read_private(&place.join("current")).ok().map(|(text, _)| text.trim().to_owned());
        let mut versions = versions(place);
        versions.sort_by_key(|it| std::cmp::Reverse((Some(it) == named.as_ref(), it.clone())));
        for version in versions {
            let directory = place.join(&version);
            let read = read(&directory, &mut loaded.notes).and_then(|it| usable(&it).map(|()| it));
            match read {
                Ok(bundle) => {
                    if named.as_ref() != Some(&version) {
                        loaded
                            .notes
                            .push(format!("{} is used, since the current version cannot be", directory.display()));
                    }
                    loaded.current = Some((version, bundle));
                    break;
                }
                // Newer than the current one: a crash came before it counted. It may only lack its end.
                Err(why) => {
                    loaded.notes.push(format!("{} cannot be used: {why}", directory.display()));
                    self.quarantine(&directory);
                }
            }
        }
        loaded
    }

    fn quarantine(&self, directory: &Path) {
        let aside = self.root.join("quarantine");
        let name = directory.file_name().unwrap_or_default();
        let moved = disk::private_directory(&aside).and_then(|()| fs::rename(directory, aside.join(name)));
        if let Err(error) = moved {
            tracing::warn!(target: "tls", %error, "{} cannot be set aside", directory.display());
        }
    }

    /// The new version counts when this returns; before that the old one does.
    pub(in crate::tls) fn save(&self, name: &str, bundle: &Bundle, now: SystemTime) -> io::Result<String> {
        self.prepare()?;
        let place = self.place(name);
        disk::private_directory(&place)?;
        let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let version = format!("v-{millis:014}-{:08x}", fastrand::u32(..));
        let fresh = place.join(format!(".{version}"));
        disk::private_directory(&fresh)?;
        disk::write_new(&fresh.join("key.pem"), bundle.key_pem.as_bytes())?;
        disk::write_new(&fresh.join("chain.pem"), bundle.chain_pem.as_bytes())?;
        let meta = serde_json::to_vec_pretty(&bundle.meta).map_err(io::Error::other)?;
        disk::write_new(&fresh.join("meta.json"), &meta)?;
        disk::sync_directory(&fresh)?;
        disk::rename(&fresh, &place.join(&version))?;
        disk::replace(&place.join("current"), format!("{version}\n").as_bytes())?;
        prune(&place, &version);
        Ok(version)
    }

    pub(in crate::tls) fn record(&self, name: &str, record: &Record) -> io::Result<()> {
        self.prepare()?;
        let place = self.place(name);
        disk::private_directory(&place)?;
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
        disk::replace(&place.join("state.json"), &text)
    }

    /// The certificate itself; who wants one stays written down.
    pub(in crate::tls) fn drop_versions(&self, name: &str) -> io::Result<()> {
        let place = self.place(name);
        // First what names one, or a crash in between would look like damage.
        disk::remove_file(&place.join("current"))?;
        versions(&place).iter().try_for_each(|it| disk::remove_tree(&place.join(it)))
    }

    /// All but the request that may be under way.
    pub(in crate::tls) fn forget(&self, name: &str) -> io::Result<()> {
        disk::remove_tree(&self.place(name))
    }

    pub(in crate::tls) fn remove(&self, name: &str) -> io::Result<()> {
        self.drop_pending(name)?;
        disk::remove_tree(&self.place(name))
    }
}

/// Names of whole versions, in no order.
fn versions(place: &Path) -> Vec<String> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let name = |it: fs::DirEntry| it.file_name().into_string().ok();
    entries
        .filter(|it| it.file_type().is_ok_and(|it| it.is_dir()))
        .filter_map(name)
        .filter(|it| it.starts_with("v-"))
        .collect()
}

fn read(directory: &Path, notes: &mut Vec<String>) -> Result<Bundle, String> {
    let mut text = |file: &str| {
        let (text, note) = disk::read_private(&directory.join(file)).map_err(|error| format!("{file}: {error}"))?;
        notes.extend(note);
        Ok::<_, String>(text)
    };
    let (key_pem, chain_pem, meta) = (text("key.pem")?, text("chain.pem")?, text("meta.json")?);
    let meta = serde_json::from_str(&meta).map_err(|error| format!("meta.json: {error}"))?;
    Ok(Bundle { key_pem, chain_pem, meta })
}

/// Forgets the oldest, and what a crash left behind. That it fails costs room on the disk and nothing else.
fn prune(place: &Path, current: &str) {
    let mut old = versions(place);
    old.sort_unstable();
    old.retain(|it| it != current);
    let too_many = (old.len() + 1).saturating_sub(KEPT);
    let left = fs::read_dir(place).into_iter().flatten().flatten().filter_map(|it| it.file_name().into_string().ok());
    let unfinished = left.filter(|it| it.starts_with(".v-"));
    for name in old.into_iter().take(too_many).chain(unfinished) {
        let _ = fs::remove_dir_all(place.join(name));
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
