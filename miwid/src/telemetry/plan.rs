//! What a rotation renames and deletes: pure, from the list of backups that exist.
//!
//! A backup that exists both plain and compressed is one backup: the daemon died between finishing the `.gz` and
//! deleting the plain file, so the plain one goes.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use config::{BackupNaming, Rotation};

/// One rotated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backup {
    pub(super) path: PathBuf,
    /// What stands between the log's name and `.gz`: `1`, `20261124-101532`, `20261124-101532.1`.
    pub(super) tag: String,
    pub(super) compression: Compression,
    pub(super) modified: SystemTime,
    pub(super) size_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Plain,
    Gzip,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Rename { from: PathBuf, to: PathBuf },
    Delete(PathBuf),
}

impl Backup {
    /// Its number; `None` for a timed one (those have at least eight digits and a dash).
    fn number(&self) -> Option<u64> {
        self.tag.parse().ok()
    }

    /// Newest first: numbers rise with age, times fall with it; numbered ones are never mixed with timed ones unless the
    /// naming was changed, and then the modification time decides.
    fn age_order(&self, other: &Self) -> std::cmp::Ordering {
        match (self.number(), other.number()) {
            (Some(ours), Some(theirs)) => ours.cmp(&theirs),
            (None, None) => timed_key(&other.tag).cmp(&timed_key(&self.tag)),
            _ => other.modified.cmp(&self.modified),
        }
    }
}

/// Second and, within it, the counter.
fn timed_key(tag: &str) -> (&str, u64) {
    let (second, counter) = tag.split_once('.').unwrap_or((tag, "0"));
    (second, counter.parse().unwrap_or(0))
}

/// The steps of one rotation, in order, and the name of the new backup.
pub(super) fn rotate(log: &Path, found: &[Backup], rotation: &Rotation, now: SystemTime) -> (Vec<Step>, PathBuf) {
    let mut steps = Vec::new();
    let keep = survivors(found, rotation, now, &mut steps);
    let tag = match rotation.naming {
        BackupNaming::Numbered => {
            // Highest first, so that no rename lands on a file that is still needed.
            for backup in keep.iter().rev() {
                let Some(number) = backup.number() else { continue };
                let mut to = with_suffix(log, &(number + 1).to_string());
                if backup.compression == Compression::Gzip {
                    to = with_suffix(&to, "gz");
                }
                steps.push(Step::Rename { from: backup.path.clone(), to });
            }
            "1".to_owned()
        }
        BackupNaming::Timed => free_tag(found, now),
    };
    let backup = with_suffix(log, &tag);
    steps.push(Step::Rename { from: log.to_owned(), to: backup.clone() });
    if rotation.max_backups == 0 {
        steps.push(Step::Delete(backup.clone()));
    }
    (steps, backup)
}

/// Deletes what is too many, too old or too much (one place is kept for the new backup); returns the rest, newest first.
fn survivors(found: &[Backup], rotation: &Rotation, now: SystemTime, steps: &mut Vec<Step>) -> Vec<Backup> {
    let is_twin = |backup: &Backup| {
        backup.compression == Compression::Plain
            && found.iter().any(|other| other.tag == backup.tag && other.compression == Compression::Gzip)
    };
    let mut sorted = found.to_vec();
    sorted.sort_by(Backup::age_order);
    let (mut keep, mut total) = (Vec::new(), 0_u64);
    for backup in sorted {
        let age = now.duration_since(backup.modified).unwrap_or_default();
        let with_it = total.saturating_add(backup.size_bytes);
        let goes = is_twin(&backup)
            || keep.len() + 1 >= rotation.max_backups
            || rotation.max_age.is_some_and(|limit| age > limit)
            || rotation.max_total.is_some_and(|limit| with_it > limit.bytes());
        if goes {
            steps.push(Step::Delete(backup.path));
        } else {
            total = with_it;
            keep.push(backup);
        }
    }
    keep
}

fn free_tag(found: &[Backup], now: SystemTime) -> String {
    let stamp = jiff::Timestamp::try_from(now).unwrap_or_default().strftime("%Y%m%d-%H%M%S").to_string();
    let last = found.iter().map(|backup| timed_key(&backup.tag)).filter(|key| key.0 == stamp).map(|key| key.1).max();
    match last {
        None => stamp,
        Some(counter) => format!("{stamp}.{}", counter + 1),
    }
}

pub(super) fn oldest_plain(mut found: Vec<Backup>) -> Option<Backup> {
    found.sort_by(Backup::age_order);
    found.into_iter().rev().find(|backup| backup.compression == Compression::Plain)
}

/// The backups of `log` that its directory holds; other files there are not ours.
pub(super) fn backups(log: &Path) -> io::Result<Vec<Backup>> {
    let directory = log.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = format!("{}.", log.file_name().unwrap_or_default().to_string_lossy());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else { continue };
        let (tag, compression) = match rest.strip_suffix(".gz") {
            Some(tag) => (tag, Compression::Gzip),
            None => (rest, Compression::Plain),
        };
        let Ok(meta) = entry.metadata() else { continue };
        if is_tag(tag) && meta.is_file() {
            let (modified, size_bytes) = (meta.modified()?, meta.len());
            found.push(Backup { path: entry.path(), tag: tag.to_owned(), compression, modified, size_bytes });
        }
    }
    Ok(found)
}

/// A number, or `YYYYMMDD-HHMMSS` with an optional counter.
fn is_tag(tag: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match tag.split_once('-') {
        None => digits(tag) && tag.len() < 8,
        Some((day, rest)) => {
            let (time, counter) = rest.split_once('.').unwrap_or((rest, "0"));
            day.len() == 8 && time.len() == 6 && digits(day) && digits(time) && digits(counter)
        }
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    name.into()
}
