//! From a backend and what lies on the disk to a command line. An adapter never runs the app's code to find out:
//! what it can't tell becomes a finding with the candidates, not a guess.

mod command;
mod node;
mod python;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use config::{AppType, KillMode, Listen, Process, Secret};

use super::spec::AddressPlan;

/// What an adapter settles; the preflight adds what all apps share.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) argv: Vec<String>,
    /// Set unless the operator did.
    pub(super) env: Vec<(String, String)>,
    pub(super) address: AddressPlan,
    pub(super) kill_mode: KillMode,
    pub(super) upstream_idle: Duration,
    pub(super) notices: Vec<String>,
}

/// One obstacle; `key` is relative to `process`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) code: &'static str,
    pub(super) key: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Obstacle {
    pub(super) fn new(code: &'static str, key: &'static str, message: String, hint: impl Into<Option<String>>) -> Self {
        Self { code, key, message, hint: hint.into() }
    }
}

pub(super) fn recipe(kind: AppType, process: &Process, env: &[(String, Secret)]) -> Result<Recipe, Vec<Obstacle>> {
    match kind {
        AppType::Nodejs => node::recipe(process, env),
        AppType::Python => python::recipe(process, env),
        AppType::Command => command::recipe(process, env).map_err(|obstacle| vec![obstacle]),
        AppType::Java | AppType::Tomcat => Err(vec![Obstacle::new(
            "app-type-unavailable",
            "",
            "apps of type java and tomcat are not available in this version".to_owned(),
            "run it with app_type = \"command\"".to_owned(),
        )]),
        AppType::Proxy | AppType::Static => {
            Err(vec![Obstacle::new("app-no-process", "", "this app_type has no process".to_owned(), None)])
        }
    }
}

fn tcp_unless_unix(listen: Listen) -> AddressPlan {
    if listen == Listen::Unix { AddressPlan::Unix } else { AddressPlan::Tcp }
}

pub(super) fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// An absolute path for `command`: relative ones count from the working directory, bare names are searched in `PATH`.
fn resolve(command: &str, process: &Process, env: &[(String, Secret)]) -> Result<String, Obstacle> {
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
            Ok(_) => interpreter(&path).map(|()| path.display().to_string()),
        };
    }
    let path = super::environment::value(env, "PATH").unwrap_or_default();
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

/// Checks that a script's `#!` leads somewhere.
fn interpreter(script: &Path) -> Result<(), Obstacle> {
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
