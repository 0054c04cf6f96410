//! The files that we ship load, and the generated page is current.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use config::{Capabilities, Config, Target, load, load_text};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn loaded(path: &Path) -> Config {
    let loaded = load(path, &[], &Capabilities::default());
    let loaded = loaded.unwrap_or_else(|problems| panic!("{}: {problems:#?}", path.display()));
    assert_eq!(loaded.warnings, [], "{}", path.display());
    loaded.config
}

#[test]
fn every_example_loads_and_is_short() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(here("examples")).unwrap() {
        let path = entry.unwrap().path();
        let config = loaded(&path);
        assert_eq!(config.backends.len(), 1, "{}", path.display());
        assert!(std::fs::read_to_string(&path).unwrap().lines().count() <= 16, "{}", path.display());
        names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    let known = [
        "acme",
        "client-certificates",
        "cloudflare",
        "compression",
        "grpc",
        "https",
        "load-balancer",
        "node-app",
        "policies",
        "python-asgi",
        "python-wsgi",
        "reverse-proxy",
        "roles",
        "static-site",
        "tomcat-war",
    ];
    assert_eq!(names, known);
}

#[test]
fn the_annotated_default_loads() {
    let config = loaded(&here("miwid.toml"));
    assert!(config.logging.access_log.enabled);
    assert!(matches!(config.backends["_"].target, Target::Respond { status: 200, .. }));
}

/// Every commented line that is a key or a table shows something that loads.
#[test]
fn the_annotated_default_loads_with_its_comments_taken_away() {
    let text = std::fs::read_to_string(here("miwid.toml")).unwrap();
    let code = |line: &str| line.contains(" = ") || line.starts_with('[');
    let bare: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|it| code(it)).unwrap_or(line))
        .filter(|line| !line.starts_with("include"))
        .collect();
    let config = load_text(Path::new("/etc/miwid/miwid.toml"), &bare.join("\n"), &[], &Capabilities::default());
    let config = config.unwrap_or_else(|problems| panic!("{problems:#?}")).config;
    assert_eq!(config.backends.len(), 4);
    assert_eq!(config.server.max_connections, Some(100_000));
}

#[test]
fn the_commented_values_are_the_defaults() {
    let empty = load_text(Path::new("/etc/miwid/miwid.toml"), "", &[], &Capabilities::default()).unwrap().config;
    let text = "[server]\nbind = [\"0.0.0.0\", \"[::]\"]\nhttps_port = 8443\nworkers = 0\nkeepalive_timeout = \"65s\"\n\
                request_timeout = \"30s\"\nstream_idle_timeout = \"1h\"\nshutdown_timeout = \"75s\"\nserver_header = true\n\
                [server.limits]\nmax_request_size = \"10MB\"\nmax_header_size = \"32KB\"\nmax_uri_length = 8192\n\
                [logging]\nlevel = \"info\"\nformat = \"text\"\n[logging.rotation]\nmax_size_mb = 100\nmax_backups = 10\n\
                compress = true\n[metrics]\nenabled = true\n[compression]\nenabled = false\nalgorithms = [\"zstd\", \"br\", \"gzip\"]\n\
                min_size = \"1KB\"\n[admin]\nlisten = \"127.0.0.1:9180\"\n";
    let written = load_text(Path::new("/etc/miwid/miwid.toml"), text, &[], &Capabilities::default()).unwrap().config;
    assert_eq!(empty, written);
}

#[test]
fn the_built_in_default_loads() {
    let text = config::builtin(Path::new("/opt/odd ${dir}/\"miwid\""));
    let config = load_text(Path::new("miwid.toml"), &text, &[], &Capabilities::default()).unwrap().config;
    assert_eq!(config.path, None);
    assert!(!config.logging.access_log.enabled);
    let demo = &config.backends["app.localhost"];
    let process = demo.process.as_ref().unwrap();
    assert_eq!(demo.name, "demo");
    assert_eq!(process.command.as_deref(), Some("/opt/odd ${dir}/\"miwid\""));
    assert_eq!(process.working_dir, std::env::current_dir().unwrap());
}

/// To bring it up to date: `MIWI_WRITE_REFERENCE=1 cargo test -p miwi-config --test files`.
#[test]
fn the_reference_page_is_current() {
    let path = here("REFERENCE.md");
    let page = config::reference_page();
    if std::env::var_os("MIWI_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == page, "config/REFERENCE.md is not what the keys say");
}

#[test]
fn the_schema_knows_every_table_and_resolves_its_references() {
    let schema = config::json_schema();
    let text = schema.to_string();
    for key in ["spa_fallback", "restart_strategy", "hmac_key_file", "patternProperties", "least_conn"] {
        assert!(text.contains(key), "{key}");
    }
    for (i, _) in text.match_indices("#/$defs/") {
        let name: String = text[i + 8..].chars().take_while(|it| *it != '"').collect();
        assert!(schema["$defs"][&name].is_object(), "{name}");
    }
}
