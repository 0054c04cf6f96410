//! The few things that are done to a disk, each whole or not at all. In tests any of them can be the one where the machine
//! dies or the disk is full.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Fails where a test wants it to. What was done before stays as it is, as after a crash.
fn step() -> io::Result<()> {
    #[cfg(test)]
    return faults::step();
    #[cfg(not(test))]
    Ok(())
}

/// A directory that only we can look into, with what is missing above it.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    if !path.exists() {
        step()?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    }
    Ok(())
}

/// Refuses what others could write to, or have put in our way.
pub(super) fn judge_directory(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let told = |why: &str| Err(io::Error::other(format!("{} {why}", path.display())));
    if !found.is_dir() {
        return told("is no directory");
    }
    if found.mode() & 0o022 != 0 {
        return told("can be written to by others; `chmod go-w` it");
    }
    if found.uid() != nix::unistd::geteuid().as_raw() && found.uid() != 0 {
        return told("belongs to somebody else");
    }
    Ok(())
}

/// A new file with this content, on the disk when this returns.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    if let Err(error) = step() {
        let _ = file.write_all(&bytes[..bytes.len() / 2]);
        return Err(error);
    }
    file.write_all(bytes)?;
    step()?;
    file.sync_all()
}

/// A file that others read while it is replaced: they see the old content or the new.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_new(&temporary, bytes)?;
    rename(&temporary, path)
}

/// Within one directory; on the disk when this returns.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), sync_directory)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    step()?;
    File::open(path)?.sync_all()
}

pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    step()?;
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    step()?;
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The text of a regular file. A key that others may read is made private, and said so.
pub(super) fn read_private(path: &Path) -> io::Result<(String, Option<String>)> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::other(format!("{} is no regular file", path.display())));
    }
    let mut note = None;
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        note = Some(format!("{} could be read by others; it is private now", path.display()));
    }
    Ok((fs::read_to_string(path)?, note))
}

#[cfg(test)]
pub(in crate::tls) mod faults {
    use std::{cell::Cell, io};

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// The step after `steps` more fails, and all that follow. `None`: none.
    pub(in crate::tls) fn after(steps: Option<usize>) {
        LEFT.set(steps);
    }

    pub(super) fn step() -> io::Result<()> {
        match LEFT.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(left) => {
                LEFT.set(Some(left - 1));
                Ok(())
            }
        }
    }
}
