//! Who may request a certificate: a lock that ends with its process, however that ends.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};

use super::{disk, names::safe};

pub(in crate::tls) struct Lock(#[expect(dead_code, reason = "held, not used")] Flock<File>);

/// `None` when another process has it.
pub(super) fn try_lock(root: &Path, name: &str) -> io::Result<Option<Lock>> {
    let directory = root.join("locks");
    disk::private_directory(&directory)?;
    let path = directory.join(safe(name));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut held) => {
            // For whoever wonders; nothing depends on it.
            let _ = held.set_len(0).and_then(|()| writeln!(held, "{}", std::process::id()));
            Ok(Some(Lock(held)))
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}
