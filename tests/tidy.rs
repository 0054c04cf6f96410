//! The house rules that a compiler cannot see: which room may import which, which crate lives where, what every file opens with.
//!
//! It reads text, not syntax: what stands behind `//` is gone before a line is judged, macros are not expanded.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Bottom floor first; a room imports only from floors below its own. Rooms that are planned have their place already.
const FLOORS: &[&[&str]] = &[
    &["telemetry", "link"],
    &["net"],
    &["exchange", "encoding", "client"],
    &["cloudflare"],
    &["tls"],
    &["upstream"],
    &["files", "proxy", "cache", "app", "policy", "builtin"],
    &["routing"],
    &["snapshot"],
    &["server"],
    &["reload"],
    &["control"],
    &["warden"],
    &["daemon", "cli", "signal", "main", "lib"],
];

/// The rooms of the roof: they put the house together and may see each other.
const ROOF: usize = FLOORS.len() - 1;

/// Rooms that stand apart: they import only these.
const APART: &[(&str, &[&str])] = &[("warden", &["link"])];

/// A crate that one room owns; elsewhere it is reached through that room, or not at all.
const LODGERS: &[(&str, &[&str])] = &[
    ("proto", &["control"]),
    ("tonic", &["control"]),
    ("tonic_reflection", &["control"]),
    ("axum", &["builtin"]),
    ("tower", &["builtin"]),
    ("brotli", &["encoding"]),
    ("zstd", &["encoding"]),
    // `daemon` for the demo app, which is a program of its own.
    ("tokio_rustls", &["tls", "upstream", "client"]),
    ("rcgen", &["tls"]),
    ("instant_acme", &["tls"]),
    ("quinn", &["net", "server"]),
    ("hyper", &["proxy", "upstream", "server", "exchange", "net", "daemon", "client"]),
    ("clap", &["cli", "main"]),
    ("toml", &[]),
];

/// Lines before a file's tests; past this two ideas live in it.
const LINES_MAX: usize = 450;

const EXAMPLES: &[&str] = &[
    "static-site",
    "reverse-proxy",
    "load-balancer",
    "node-app",
    "python-wsgi",
    "python-asgi",
    "tomcat-war",
    "https",
    "cloudflare",
    "acme",
    "client-certificates",
    "compression",
    "policies",
    "grpc",
    "roles",
];

#[test]
fn rooms_import_downwards_only() {
    let mut problems = Vec::new();
    for (file, code) in rooms() {
        let room = room_of(&file);
        let Some(own) = floor(&room) else {
            problems.push(format!("{}: room `{room}` is on no floor", file.display()));
            continue;
        };
        for other in imports(&code).into_iter().filter(|other| *other != room) {
            let allowed = match (floor(&other), APART.iter().find(|(name, _)| *name == room)) {
                (None, _) => continue,
                (Some(_), Some((_, below))) => below.contains(&other.as_str()),
                (Some(target), None) => target < own || own == ROOF,
            };
            if !allowed {
                problems.push(format!("{}: `{room}` may not import `{other}`", file.display()));
            }
        }
    }
    report(&problems);
}

#[test]
fn lodgers_stay_in_their_rooms() {
    let mut problems = Vec::new();
    for (file, code) in rooms() {
        let room = room_of(&file);
        for (lodger, homes) in LODGERS {
            if names(&code, lodger) && !homes.contains(&room.as_str()) {
                problems.push(format!("{}: `{lodger}` lives in {homes:?}, not in `{room}`", file.display()));
            }
        }
    }
    report(&problems);
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let mut problems = Vec::new();
    for file in sources() {
        if !fs::read_to_string(&file).unwrap().starts_with("//!") {
            problems.push(format!("{}: a file opens with `//!`", relative(&file)));
        }
    }
    report(&problems);
}

#[test]
fn doors_hold_no_furniture() {
    let mut problems = Vec::new();
    for (file, code) in rooms().into_iter().filter(|(file, _)| file.ends_with("mod.rs")) {
        for line in code.lines() {
            let word = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            if ["fn ", "async fn ", "impl ", "impl<", "struct ", "enum ", "trait "]
                .iter()
                .any(|it| word.starts_with(it))
            {
                problems.push(format!("{}: `{}` belongs in a file of its own", file.display(), line.trim()));
            }
        }
    }
    report(&problems);
}

#[test]
fn files_hold_one_idea() {
    let mut problems = Vec::new();
    for file in sources().into_iter().filter(|file| !relative(file).starts_with("tests/")) {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
        if lines > LINES_MAX {
            problems.push(format!("{}: {lines} lines before its tests, more than {LINES_MAX}", relative(&file)));
        }
    }
    report(&problems);
}

#[test]
fn examples_load() {
    let mut problems = Vec::new();
    let directory = repository().join("config/examples");
    for name in EXAMPLES {
        if !directory.join(format!("{name}.toml")).exists() {
            problems.push(format!("config/examples/{name}.toml is missing"));
        }
    }
    let mut files: Vec<PathBuf> =
        fs::read_dir(&directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|it| it == "toml"));
    files.push(repository().join("config/miwid.toml"));
    for file in files {
        if let Err(found) = config::load(&file, &[], &config::Capabilities::default()) {
            problems.push(format!("{}: {found:#?}", relative(&file)));
        }
    }
    report(&problems);
}

#[test]
fn what_the_documentation_names_is_there() {
    let named = [
        ".ci/run",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "config/miwid.toml",
        "deny.toml",
        "miwid/ARCHITECTURE.md",
        "packaging/docker/Dockerfile",
        "packaging/systemd/miwid.service",
        "packaging/systemd/miwid.sysusers",
        "packaging/systemd/miwid.tmpfiles",
        "tests/bench/run",
        "tests/fuzz/README.md",
        "tests/fuzz/run",
        "tests/run",
    ];
    let missing: Vec<String> =
        named.iter().filter(|it| !repository().join(it).exists()).map(|it| format!("{it} is missing")).collect();
    report(&missing);
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    // Spelled in two parts, or this file would name it.
    let place = concat!("/wo", "rk/");
    let mut problems = Vec::new();
    for file in texts(&repository()) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-./}".contains(c));
            if line.match_indices(place).any(|(at, _)| begins(at)) {
                problems.push(format!("{}:{}: names a directory of one machine", relative(&file), number + 1));
            }
        }
    }
    report(&problems);
}

#[test]
fn imports_are_found_in_groups_too() {
    let found = |code: &str| imports(code).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(found("use crate::net::Drain;"), "net");
    assert_eq!(found("use crate::{app::{Handle, Spec}, files, upstream::Set};"), "app files upstream");
    assert_eq!(found("use crate::{\n    app,\n    net::{a::{b, c}, d},\n};"), "app net");
    assert_eq!(found("let x = crate::server::run(); crate::net::y()"), "net server");
    assert_eq!(found("mycrate::net::x()"), "");
}

#[test]
fn a_crate_is_named_only_by_its_whole_name() {
    assert!(names("use hyper::body::Body;", "hyper"));
    assert!(names("use hyper as other;", "hyper"));
    assert!(!names("use hyper_util::rt;", "hyper"));
    assert!(!names("crate::proto::x()", "proto"));
    assert!(!names("let proto = 1;", "proto"));
}

// === reading ===

/// Every file of the daemon with its code, comments gone; paths begin with the room.
fn rooms() -> Vec<(PathBuf, String)> {
    let root = repository().join("miwid/src");
    let files: Vec<_> = texts(&root).into_iter().filter(|file| file.extension().is_some_and(|it| it == "rs")).collect();
    assert!(!files.is_empty(), "the daemon has sources");
    let read = |file: PathBuf| {
        let code = without_comments(&fs::read_to_string(&file).unwrap());
        (file.strip_prefix(&root).unwrap().to_owned(), code)
    };
    files.into_iter().map(read).collect()
}

fn sources() -> Vec<PathBuf> {
    let mut files = texts(&repository());
    files.retain(|file| file.extension().is_some_and(|it| it == "rs"));
    files
}

/// All files below `root` but what was built or installed.
fn texts(root: &Path) -> Vec<PathBuf> {
    const FOREIGN: &[&str] = &["target", "node_modules", ".venv", ".git", ".installed", "__pycache__", "results"];
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match (path.is_dir(), FOREIGN.contains(&name.as_str())) {
            (_, true) => {}
            (true, _) => found.extend(texts(&path)),
            (false, _) => found.push(path),
        }
    }
    found.sort();
    found
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn room_of(file: &Path) -> String {
    file.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The first segments behind `crate::`, also inside `crate::{a, b::{c}}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        if code[..at].ends_with(is_word) {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            None => _ = found.insert(first_word(rest)),
            Some(group) => found.extend(members(group)),
        }
    }
    found
}

/// The first segment of each member of a group whose `{` is already read.
fn members(group: &str) -> Vec<String> {
    let mut found = vec![first_word(group)];
    let mut depth = 0_usize;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.push(first_word(&group[at + 1..])),
            _ => {}
        }
    }
    found.retain(|it| !it.is_empty());
    found
}

/// Whether the code names the crate: `krate::` at the start of a path, or `use krate`.
fn names(code: &str, krate: &str) -> bool {
    code.match_indices(krate).any(|(at, _)| {
        let before = &code[..at];
        let after = &code[at + krate.len()..];
        let starts = !before.ends_with(|c: char| is_word(c) || c == ':');
        let used = before.trim_end().ends_with("use") && !after.starts_with(is_word);
        starts && (after.starts_with("::") || used)
    })
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| is_word(*c)).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn relative(file: &Path) -> String {
    file.strip_prefix(repository()).unwrap_or(file).display().to_string()
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
