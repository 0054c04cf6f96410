//! The configuration of a test daemon is a template; this fills it in and adds what every test daemon needs.
//!
//! New tables are added last, so that the lines of the test's own text keep their numbers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{binaries, process};

/// See `Builder::run_directory_of`.
pub(crate) const RUN: &str = "run";

/// Fills in the placeholders of a configuration, a script or an argument. `{{port}}` stays as miwid's own `{port}`.
pub(crate) fn fill(text: &str, dir: &Path, ports: &[u16]) -> String {
    let mut text = text
        .replace("{{port}}", "\u{1}")
        .replace("{dir}", &dir.display().to_string())
        .replace("{repository}", &binaries::repository().display().to_string())
        .replace("{port}", &ports[0].to_string());
    if text.contains("{chaos}") {
        text = text.replace("{chaos}", &binaries::chaos_app().display().to_string());
    }
    for (index, port) in ports.iter().enumerate().skip(1) {
        text = text.replace(&format!("{{port{}}}", index + 1), &port.to_string());
    }
    text.replace('\u{1}', "{port}")
}

/// Adds what every test daemon needs and the test did not say. New tables come last, so that
/// the lines of the test's own text keep their numbers.
pub(crate) fn write_config(path: &Path, text: &str, dir: &Path, ports: &[u16]) {
    fs::write(path, fill(&complete(text), dir, ports)).expect("writes the configuration");
}

fn complete(text: &str) -> String {
    let has = |line: &str| text.lines().any(|it| it.trim() == line);
    let defaults = ["bind = [\"127.0.0.1\"]", "http_port = {port}", "state_dir = \"{dir}/state\""];
    let mut full = text.to_owned();
    if has("[server]") {
        let missing: Vec<&str> = defaults
            .into_iter()
            .filter(|it| !table(text, "[server]").contains(it.split(' ').next().unwrap_or(it)))
            .collect();
        // The lines below the header move down: a test about line numbers says all of `[server]` itself.
        full = full.replacen("[server]", &format!("[server]\n{}", missing.join("\n")), 1);
    } else {
        full.push_str(&format!("\n[server]\n{}\n", defaults.join("\n")));
    }
    if !has("[admin]") {
        full.push_str("\n[admin]\nlisten = \"off\"\n");
    }
    if !text.contains("[logging") {
        full.push_str("\n[logging]\nlevel = \"debug\"\n[logging.access_log]\nenabled = true\npath = \"{dir}/access.log\"\nformat = \"json\"\nbuffer_size = 1\n");
    }
    full
}

/// The lines of one table, up to the next header.
fn table<'a>(text: &'a str, header: &str) -> &'a str {
    let Some(start) = text.find(header) else { return "" };
    let rest = &text[start + header.len()..];
    rest.find("\n[").map_or(rest, |end| &rest[..end])
}

/// Nine ports that are free, no two the same.
pub(crate) fn pick_ports() -> Vec<u16> {
    (0..9).map(|_| process::free_port()).collect()
}

pub(crate) fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("sets the mode");
}

pub(crate) fn give_to(path: &Path, uid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("changes the owner");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("reads the directory") {
            give_to(&entry.expect("an entry").path(), uid);
        }
    }
}

pub(crate) fn log_path(dir: &Path) -> PathBuf {
    dir.join("daemon.log")
}

pub(crate) fn socket_path(dir: &Path) -> PathBuf {
    // Where the daemon's account differs from that of its configuration, it has a directory of its own.
    let own = dir.join(RUN);
    if own.is_dir() { own.join("control.sock") } else { dir.join("control.sock") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_tables_gets_the_defaults_behind_its_own_lines() {
        let full = complete("[backends.\"a.test\"]\nroot = \"x\"");
        assert!(full.starts_with("[backends.\"a.test\"]\nroot = \"x\"\n"));
        assert!(full.contains("http_port = {port}"));
        assert!(full.contains("listen = \"off\""));
    }

    #[test]
    fn what_the_test_says_is_kept() {
        let full = complete("[server]\nhttp_port = 0\n\n[admin]\nlisten = \"127.0.0.1:{port2}\"\n");
        assert!(full.contains("http_port = 0") && !full.contains("http_port = {port}"));
        assert!(!full.contains("\"off\""));
    }

    #[test]
    fn placeholders_are_filled_in() {
        let ports: Vec<u16> = (1..10).collect();
        assert_eq!(fill("{dir}/x {port} {port3} {{port}}", Path::new("/d"), &ports), "/d/x 1 3 {port}");
    }
}
