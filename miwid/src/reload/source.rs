//! Where the configuration comes from: a file that was named or found, or the built-in default.

use std::{
    fmt, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use config::{Capabilities, Loaded, Problem};

const PLACES: [&str; 3] = ["./miwid.toml", "./config.toml", "/etc/miwid/miwid.toml"];

/// Remembered from the start, so that a reload reads the same place again.
#[derive(Clone, Debug)]
pub struct Source {
    /// `None`: the built-in default.
    pub path: Option<PathBuf>,
    pub overrides: Vec<(String, String)>,
}

/// A file that must not be trusted: as root, whoever can write it is root.
#[derive(Debug)]
pub struct SourceError {
    pub path: PathBuf,
    pub why: String,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "will not read {} as root: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for SourceError {}

impl Source {
    /// The named file, else the first that exists. A file found in the working directory is only read as root when
    /// nobody else could have put it there.
    pub fn find(named: Option<PathBuf>, overrides: Vec<(String, String)>) -> Result<Self, SourceError> {
        let found = || PLACES.iter().map(PathBuf::from).find(|it| it.exists());
        let path = match named {
            Some(path) => Some(path),
            None => {
                found().map(|it| if nix::unistd::geteuid().is_root() { guarded(it) } else { Ok(it) }).transpose()?
            }
        };
        let path = path.map(|it| std::path::absolute(&it).unwrap_or(it));
        Ok(Self { path, overrides })
    }

    /// Reads it. Blocking.
    pub fn load(&self, capabilities: &Capabilities) -> Result<Loaded, Vec<Problem>> {
        match &self.path {
            Some(path) => config::load(path, &self.overrides, capabilities),
            None => {
                let exe = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("miwid"));
                let mut loaded = config::load_text(
                    Path::new("built-in default"),
                    &config::builtin(&exe),
                    &self.overrides,
                    capabilities,
                )?;
                loaded.config.path = None;
                Ok(loaded)
            }
        }
    }
}

fn guarded(path: PathBuf) -> Result<PathBuf, SourceError> {
    let why = match unsafe_reason(&path) {
        Ok(None) => return Ok(path),
        Ok(Some(why)) => why,
        Err(error) => error.to_string(),
    };
    Err(SourceError { path, why })
}

/// Why a file (or its directory) could have been written by somebody else than root.
pub fn unsafe_reason(path: &Path) -> io::Result<Option<String>> {
    let directory = std::path::absolute(path)?.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    for it in [path, &directory] {
        let metadata = std::fs::metadata(it)?;
        if metadata.uid() != 0 {
            return Ok(Some(format!("{} belongs to uid {}", it.display(), metadata.uid())));
        }
        let mode = metadata.permissions().mode();
        if mode & 0o022 != 0 {
            return Ok(Some(format!("{} can be written by others (mode {:04o})", it.display(), mode & 0o7777)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_others_can_write_are_unsafe() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("miwid.toml");
        std::fs::write(&path, "")?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        let why = unsafe_reason(&path)?.expect("a file that all can write is not safe");
        let owner = std::fs::metadata(&path)?.uid();
        assert!(if owner == 0 { why.contains("mode 0666") } else { why.contains("belongs to uid") }, "{why}");
        Ok(())
    }
}
