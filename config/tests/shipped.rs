//! The shipped examples load, and the diff and the rendering say what happened.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use config::*;

fn good(text: &str) -> Config {
    load_text(Path::new("/c.toml"), text, &[], &Capabilities::default()).unwrap().config
}

#[test]
fn every_example_loads() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let loaded =
        std::fs::read_dir(directory).unwrap().map(|e| load(&e.unwrap().path(), &[], &Capabilities::default()).unwrap());
    assert_eq!(loaded.count(), 6);
}

#[test]
fn a_diff_names_what_changed_and_ignores_moved_lines() {
    let old = good("[backends.a]\nurl = \"http://x\"\n[backends.b.process]\ncommand = \"x\"");
    let new = good(
        "\n[server]\nworkers = 2\n[backends.b.process]\ncommand = \"y\"\n[backends.a]\nurl = \"http://x\"\n[backends.c]\nroot = \"r\"",
    );
    let found: Vec<_> = diff(&old, &new).into_iter().map(|c| format!("{} {} {}", c.kind, c.name, c.action)).collect();
    assert_eq!(found, ["app b changed", "backend c added", "settings server.workers needs-restart"]);
    assert!(diff(&old, &old).is_empty());
}

#[test]
fn a_problem_is_shown_with_its_line() {
    let text = "[server]\nhttp_prot = 1";
    let problems = load_text(Path::new("/c.toml"), text, &[], &Capabilities::default()).unwrap_err();
    let shown = problems[0].render(Some(text), false);
    let expected = "error: server.http_prot: unknown key\n  --> /c.toml:2:1\n  |\n2 | http_prot = 1\n  | ^\n  = help: did you mean \"http_port\"?\n";
    assert_eq!(shown, expected);
    assert_eq!(summary(&problems), "1 error, 0 warnings");
}

#[test]
fn secrets_are_not_shown() {
    let shown = show(&good("[cloudflare]\napi_token = \"hush\"")).to_string();
    assert!(shown.contains("***") && !shown.contains("hush"));
}

#[test]
fn the_annotated_default_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("miwid.toml");
    let config = load(&path, &[], &Capabilities::default()).unwrap().config;
    assert_eq!(config.server.http_port, 8080);
}

#[test]
fn a_backend_defined_twice_names_both_places() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("miwid.toml");
    std::fs::write(&main, "include = [\"s-*.toml\"]\n[backends.a]\nroot = \"r\"\n").unwrap();
    std::fs::write(directory.path().join("s-1.toml"), "[backends.a]\nroot = \"q\"\n").unwrap();
    let problems = load(&main, &[], &Capabilities::default()).unwrap_err();
    assert_eq!((problems.len(), problems[0].line), (1, 1));
    assert!(problems[0].file.ends_with("s-1.toml"));
    assert!(problems[0].hint.as_ref().unwrap().contains("miwid.toml:2:11"));
}
