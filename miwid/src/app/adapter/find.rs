//! Finding the program that a command names, and whether it can be run at all.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use config::{Listen, Process, Secret};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::{super::spec::AddressPlan, recipe::Obstacle};

pub(super) fn tcp_unless_unix(listen: Listen) -> AddressPlan {
    if listen == Listen::Unix { AddressPlan::Unix } else { AddressPlan::Tcp }
}

pub(super) fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// An absolute path for `command`: relative ones count from the working directory, bare names are searched in `PATH`.
pub(super) fn resolve(command: &str, process: &Process, env: &[(String, Secret)]) -> Result<String, Obstacle> {
    if command.contains('/') {
        let path = process.working_dir.join(command);
        return match path.metadata() {
            Err(_) => Err(missing(format!("command {path:?} does not exist"), None)),
            Ok(_) if !executable(&path) => Err(Obstacle::new(
                "app-command-not-exec",
                "command",
                format!("command {path:?} is not executable"),
                format!("chmod +x {}", path.display()),
            )),
            Ok(_) => mounted_for_programs(&path).and_then(|()| interpreter(&path)).map(|()| path.display().to_string()),
        };
    }
    let path = super::super::environment::value(env, "PATH").unwrap_or_default();
    if let Some(found) = search(command, path) {
        return Ok(found.display().to_string());
    }
    let elsewhere = std::env::var("PATH").ok().and_then(|own| search(command, &own));
    let hint = elsewhere
        .map(|found| format!("found {}: set command to that path or add it to env.PATH", found.display()))
        .or_else(|| Some("install it, or set command to its absolute path".to_owned()));
    Err(missing(format!("{command:?} not found in PATH ({path})"), hint))
}

fn missing(message: String, hint: Option<String>) -> Obstacle {
    Obstacle::new("app-command-missing", "command", message, hint)
}

fn search(name: &str, path: &str) -> Option<PathBuf> {
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| Path::new(dir).join(name))
        .find(|file| executable(file))
}

/// A file system that is mounted `noexec` runs nothing, whatever the file's mode says.
fn mounted_for_programs(path: &Path) -> Result<(), Obstacle> {
    match statvfs(path) {
        Ok(system) if system.flags().contains(FsFlags::ST_NOEXEC) => Err(Obstacle::new(
            "app-command-not-exec",
            "command",
            format!("command {path:?} lies on a file system that is mounted noexec"),
            "move it, or mount the file system without noexec".to_owned(),
        )),
        // What cannot be asked is left to the start itself, which names its error.
        _ => Ok(()),
    }
}

/// Checks that a script's `#!` leads somewhere.
pub(super) fn interpreter(script: &Path) -> Result<(), Obstacle> {
    use std::io::Read;
    let mut head = Vec::new();
    // A file that may be executed but not read has no `#!` that we could judge.
    let Ok(file) = std::fs::File::open(script) else { return Ok(()) };
    if file.take(256).read_to_end(&mut head).is_err() || !head.starts_with(b"#!") {
        return Ok(());
    }
    let line = String::from_utf8_lossy(&head[2..]).split('\n').next().unwrap_or_default().to_owned();
    let bad = |message, hint: &str| Err(Obstacle::new("app-command-not-exec", "command", message, hint.to_owned()));
    if line.ends_with('\r') {
        return bad(
            format!("{script:?}: bad interpreter {line:?}: the script has Windows line ends"),
            "convert it to LF line ends",
        );
    }
    match line.split_whitespace().next() {
        Some(program) if !Path::new(program).exists() => bad(
            format!("{script:?}: its interpreter {program:?} does not exist"),
            "install the interpreter or recreate the environment",
        ),
        _ => Ok(()),
    }
}
