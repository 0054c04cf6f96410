//! Engines that end one after the other: the service manager is told, and a file beside the control socket says so to whoever finds
//! that nobody answers there.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{manager::Manager, voice};
use crate::link::{Kept, trouble_beside};

#[derive(Default)]
pub(super) struct Trouble {
    /// Nothing is wrong, or this.
    why: Option<String>,
    file: Option<PathBuf>,
}

// === impl Trouble ===

impl Trouble {
    pub(super) fn begin(&mut self, why: String, kept: &Kept, manager: &mut Manager) {
        voice::warn(&why);
        manager.tell(format!("STATUS={why}"));
        self.file = file(kept);
        if let Some(Err(error)) = self.file.as_deref().map(|file| write(file, &why)) {
            voice::warn(&format!("miwictl will not know of it: {error}"));
        }
        self.why = Some(why);
    }

    pub(super) fn end(&mut self) {
        if self.why.take().is_some() {
            voice::info("an engine has lasted: all is as it should be");
        }
        self.clear();
    }

    /// Also what a warden that was killed has left, as soon as it is known where the control socket is.
    pub(super) fn clear_beside(&mut self, key: &str) {
        if let Some(socket) = key.strip_prefix("control:").filter(|_| self.why.is_none()) {
            self.file = Some(trouble_beside(Path::new(socket)));
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        if let Some(file) = self.file.take() {
            // Mostly there is none.
            let _ = fs::remove_file(file);
        }
    }

    pub(super) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// As it was in the program before.
    pub(super) fn resume(&mut self, why: Option<String>, kept: &Kept) {
        self.file = why.as_ref().and_then(|_| file(kept));
        self.why = why;
    }

    /// What an engine says of the whole, which it does not see.
    pub(super) fn joined(&self, text: String) -> String {
        match &self.why {
            Some(why) => text.replacen("STATUS=", &format!("STATUS={why}; "), 1),
            None => text,
        }
    }
}

fn file(kept: &Kept) -> Option<PathBuf> {
    let socket = kept.keys().find_map(|key| key.strip_prefix("control:"));
    socket.map(|it| trouble_beside(Path::new(it)))
}

/// Whole or not at all; whoever may enter the directory may read it.
fn write(file: &Path, why: &str) -> io::Result<()> {
    let fresh = file.with_extension("new");
    // The directory may be another account's, who could have put a link here: only a new file will do.
    let _ = fs::remove_file(&fresh);
    writeln!(fs::File::create_new(&fresh)?, "{why}")?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o644))?;
    fs::rename(fresh, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_there_as_long_as_the_trouble_and_the_status_says_both() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("control.sock");
        let file = trouble_beside(&socket);
        let key = format!("control:{}", socket.display());
        let kept = Kept::from([(key.clone(), Vec::new())]);
        let mut trouble = Trouble::default();
        assert_eq!(trouble.joined("STATUS=ready".into()), "STATUS=ready");
        trouble.begin("3 engines ended".into(), &kept, &mut Manager::default());
        assert_eq!(fs::read_to_string(&file).expect("a file"), "3 engines ended\n");
        assert_eq!(trouble.joined("READY=1\nSTATUS=ready".into()), "READY=1\nSTATUS=3 engines ended; ready");
        trouble.clear_beside(&key);
        assert!(file.exists(), "the next engine has the same socket");
        trouble.end();
        assert!(!file.exists());
        fs::write(&file, "old").expect("written");
        Trouble::default().clear_beside(&key);
        assert!(!file.exists(), "what another has left");
    }
}
