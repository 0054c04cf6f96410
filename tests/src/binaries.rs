//! Where the binaries under test are.
//!
//! `MIWID_BIN` and `MIWICTL_BIN` win; otherwise they lie beside the test executable, and are built once if missing.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The daemon.
pub fn miwid() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| locate("MIWID_BIN", "miwid", "miwid"))
}

/// The command-line client.
pub fn miwictl() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| locate("MIWICTL_BIN", "miwictl", "miwictl"))
}

/// The misbehaving app.
pub fn chaos_app() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| locate("CHAOS_APP_BIN", "chaos-app", "miwi-tests"))
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the repository")
}

fn locate(variable: &str, name: &str, package: &str) -> PathBuf {
    if let Some(given) = env::var_os(variable) {
        return PathBuf::from(given);
    }
    let profile = profile_directory();
    let path = profile.join(name);
    if !path.exists() {
        build(name, package, &profile);
    }
    assert!(path.exists(), "{} is not built; run `cargo build -p {package}`", path.display());
    path
}

/// `target/<profile>`: the test executable lies in its `deps`.
pub(crate) fn profile_directory() -> PathBuf {
    let executable = env::current_exe().expect("the path of the test executable");
    let directory = executable.parent().expect("an executable lies in a directory");
    if directory.ends_with("deps") {
        directory.parent().expect("deps has a parent").to_owned()
    } else {
        directory.to_owned()
    }
}

fn build(name: &str, package: &str, profile: &Path) {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).args(["build", "--quiet", "-p", package, "--bin", name]).stdin(Stdio::null());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "building {package} failed");
}
