//! Loading: defaults, includes, variables, `--set`, secrets, what a version refuses.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use config::{
    Capabilities, Config, Interface, Listen, Loaded, Problem, Role, Severity, StreamDrain, Target, UpstreamUrl, WakeOn,
    load, load_text, load_texts,
};
use proptest::prelude::*;
use tempfile::TempDir;

fn understood(text: &str) -> Config {
    let loaded = load_text(Path::new("/etc/miwid/m.toml"), text, &[], &Capabilities::default());
    loaded.unwrap_or_else(|problems| panic!("{problems:#?}")).config
}

fn with_set(text: &str, key: &str, value: &str) -> Result<Loaded, Vec<Problem>> {
    load_text(Path::new("m.toml"), text, &[(key.to_owned(), value.to_owned())], &Capabilities::default())
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn load_in(dir: &TempDir) -> Result<Loaded, Vec<Problem>> {
    load(&dir.path().join("miwid.toml"), &[], &Capabilities::default())
}

#[test]
fn an_app_gets_the_defaults_of_its_type() {
    let seconds = Duration::from_secs;
    for (app_type, start, stop) in
        [("nodejs", 60, 10), ("python", 60, 10), ("command", 30, 10), ("java", 120, 10), ("tomcat", 120, 20)]
    {
        let config =
            understood(&format!("[backends.a]\napp_type = {app_type:?}\n[backends.a.process]\ncommand = \"x\""));
        let process = config.backends["a"].process.clone().unwrap();
        assert_eq!((process.start_timeout, process.stop_timeout), (seconds(start), seconds(stop)), "{app_type}");
        assert_eq!((process.drain_timeout, process.instances, process.stop_signal), (seconds(30), 1, 15));
        assert_eq!((process.hold.max_requests, process.hold.timeout), (512, seconds(30)));
        assert_eq!((process.hold.release_concurrency, process.hold.on_start), (64, true));
        assert_eq!((process.stream_drain, process.listen), (StreamDrain::CloseAfter(seconds(5)), Listen::Auto));
        assert_eq!(process.working_dir, Path::new("/etc/miwid"));
        let Target::App(proxy) = &config.backends["a"].target else { panic!("not an app") };
        assert!(proxy.urls.is_empty() && proxy.preserve_host);
        assert_eq!((proxy.retries, proxy.connect_timeout, proxy.health.timeout), (1, seconds(5), seconds(5)));
    }
}

#[test]
fn a_python_table_is_enough_for_an_app() {
    let config =
        understood("[backends.a]\napp_type = \"python\"\n[backends.a.python]\napp = \"x:y\"\ninterface = \"asgi\"");
    let process = config.backends["a"].process.clone().unwrap();
    assert_eq!((process.command, process.python.app.as_deref()), (None, Some("x:y")));
    assert_eq!((process.python.interface, process.origin.line), (Interface::Asgi, 1));
}

#[test]
fn the_longest_route_comes_first_and_inherits_its_target() {
    let text = "[backends.a]\nurl = \"http://[::1]:3000/\"\n[backends.a.routes.\"/a\"]\nroot = \"x\"\n\
                [backends.a.routes.\"/a/b\"]\nsecurity = { deny = [\"10.0.0.1\"] }\n[backends.a.routes.\"/\"]\nrespond = \"hi\"";
    let backend = understood(text).backends["a"].clone();
    let prefixes: Vec<_> = backend.routes.iter().map(|it| it.prefix.as_str()).collect();
    assert_eq!(prefixes, ["/a/b", "/a", "/"]);
    assert_eq!(backend.routes[0].target, backend.target);
    assert_eq!(backend.routes[0].security.as_ref().unwrap().deny, ["10.0.0.1/32".parse().unwrap()]);
    let Target::Proxy(proxy) = backend.target else { panic!("not a proxy") };
    assert_eq!(proxy.urls, [UpstreamUrl::Http { host: "::1".into(), port: 3000 }]);
}

#[test]
fn included_files_keep_their_own_directory_and_are_listed() {
    let dir = directory(&[
        ("miwid.toml", "include = [\"sites/*.toml\"]\n[cloudflare]\napi_token_file = \"token\"\n"),
        ("token", "secret\n"),
        ("sites/a.toml", "[backends.a]\nroot = \"www\"\n"),
        ("sites/b.toml", "[backends.b]\nroot = \"/srv\"\n[metrics]\nper_site = true\n"),
        ("sites/c.txt", "not read"),
    ]);
    let config = load_in(&dir).unwrap().config;
    let Target::Files(files) = &config.backends["a"].target else { panic!("no files") };
    assert_eq!(files.root, dir.path().join("sites/www"));
    assert!(config.metrics.per_site);
    assert_eq!(config.cloudflare.api_token.as_ref().unwrap().expose(), "secret");
    let expected = ["miwid.toml", "sites/a.toml", "sites/b.toml", "token"].map(|it| dir.path().join(it));
    assert_eq!(config.files, expected);
    assert_eq!(config.path, Some(dir.path().join("miwid.toml")));
    assert!(!format!("{config:?}{}", config::show(&config)).contains("secret\""), "a secret is shown");
}

#[test]
fn what_was_read_is_understood_again_when_the_files_are_gone() {
    let dir = directory(&[
        ("miwid.toml", "include = [\"sites/*.toml\"]\n[server]\nhttp_port = 9000\n"),
        ("sites/a.toml", "[backends.a]\nroot = \"www\"\n"),
        ("sites/b.toml", "[backends.b]\nroot = \"/srv\"\n[metrics]\nper_site = true\n"),
    ]);
    let overrides = [("server.http_port".to_owned(), "9001".to_owned())];
    let first = load(&dir.path().join("miwid.toml"), &overrides, &Capabilities::default()).unwrap();
    for name in ["miwid.toml", "sites/a.toml", "sites/b.toml"] {
        fs::write(dir.path().join(name), "[broken").unwrap();
    }
    let again = load_texts(&first.texts, &overrides, &Capabilities::default()).unwrap();
    assert_eq!(format!("{:?}", again.config), format!("{:?}", first.config));
    assert_eq!((again.texts, again.config.server.http_port), (first.texts, 9001));
}

#[test]
fn a_backend_defined_twice_names_both_places() {
    let dir = directory(&[
        ("miwid.toml", "include = [\"b.toml\"]\n[backends.a]\nroot = \"x\"\n"),
        ("b.toml", "\n[backends.a]\nurl = \"http://b\"\n"),
    ]);
    let problems = load_in(&dir).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!((problems[0].file.clone(), problems[0].line), (dir.path().join("b.toml"), 2));
    let first = format!("backends.a` is already defined at {}:2", dir.path().join("miwid.toml").display());
    assert!(problems[0].message.contains(&first), "{}", problems[0].message);
}

#[test]
fn a_missing_file_is_one_problem() {
    let problems = load(Path::new("/nonexistent/m.toml"), &[], &Capabilities::default()).unwrap_err();
    assert_eq!((problems.len(), problems[0].line), (1, 0));
    assert_eq!(problems[0].render(None, false), "error: this file does not exist\n --> /nonexistent/m.toml\n");
}

#[test]
fn variables_may_be_numbers_and_flags() {
    let text = "[server]\nhttp_port = \"${MIWI_TEST_UNSET:-81}\"\nhttp3 = \"${MIWI_TEST_UNSET:-false}\"\nuser = \"${CARGO_PKG_NAME}\"";
    let server = understood(text).server;
    assert_eq!((server.http_port, server.http3, server.user.as_deref()), (81, false, Some("miwi-config")));
}

#[test]
fn set_wins_over_the_file() {
    let text = "[server]\nhttp_port = 80\nworkers = 2\n[backends.\"a.example\"]\nurl = \"http://a\"";
    let config = |key, value| with_set(text, key, value).unwrap_or_else(|it| panic!("{it:#?}")).config;
    let server = config("server.http_port", "81").server;
    assert_eq!((server.http_port, server.workers), (81, Some(2)));
    assert_eq!(config("logging.level", "miwid=debug").logging.level, "miwid=debug");
    assert_eq!(config("server.request_timeout", "5m").server.request_timeout, Duration::from_secs(300));
    let Target::Proxy(proxy) = &config("backends.\"a.example\".retries", "7").backends["a.example"].target else {
        panic!()
    };
    assert_eq!(proxy.retries, 7);
    for (key, value) in [("server.http_prt", "1"), ("server", "1"), ("a b", "1"), ("", "1"), ("[x]\ny", "1")] {
        let problems = with_set(text, key, value).unwrap_err();
        assert_eq!(problems[0].file, Path::new("--set"), "{key}");
    }
}

#[test]
fn what_this_version_cannot_do_is_refused_where_it_stands() {
    let capabilities = Capabilities {
        unavailable: [
            "ssl.**",
            "server.enable_https=true",
            "backends.*.process.probes.**",
            "backends.*.upstream_http=2",
            "acme.**",
        ]
        .map(|it| (it, "not available in this version".to_owned()))
        .to_vec(),
    };
    let text = "[server]\nenable_https = true\nhttp3 = false\n[ssl]\ncert = \"a\"\nkey = \"b\"\n[acme]\n[backends.\"a.b\"]\nurl = \"http://a\"\n\
                upstream_http = \"2\"\n[backends.\"c.d\"]\n[backends.\"c.d\".process]\ncommand = \"x\"\nprobes = { liveness = { tcp = true } }";
    let problems = load_text(Path::new("m.toml"), text, &[], &capabilities).unwrap_err();
    let lines: Vec<_> = problems.iter().map(|it| (it.line, it.message.as_str())).collect();
    assert_eq!(
        lines,
        [
            (2, "`enable_https = true`: not available in this version"),
            (5, "`cert`: not available in this version"),
            (6, "`key`: not available in this version"),
            (7, "`acme`: not available in this version"),
            (10, "`upstream_http = 2`: not available in this version"),
            (14, "`liveness`: not available in this version"),
        ]
    );
    let fine = "[server]\nenable_https = false\n[backends.a]\nurl = \"http://a\"\nupstream_http = \"1.1\"";
    load_text(Path::new("m.toml"), fine, &[], &capabilities).unwrap();
}

#[test]
fn a_problem_is_shown_with_its_line_and_carets() {
    let text = "[server]\nhtp_port = 80\n";
    let problems = load_text(Path::new("m.toml"), text, &[], &Capabilities::default()).unwrap_err();
    let shown = "error: server.htp_port: unknown key `htp_port`\n --> m.toml:2:1\n  |\n2 | htp_port = 80\n  | ^^^^^^^^\n  = help: did you mean `http_port`?\n";
    assert_eq!(problems[0].render(Some(text), false), shown);
    assert!(problems[0].render(Some(text), true).contains("\x1b[1;31merror"));
    assert!(!problems[0].render(None, false).contains("80"));
}

#[test]
fn warnings_come_with_the_configuration() {
    let text = "[backends.a.process]\ncommand = \"x\"\nstop_signal = \"KILL\"";
    let loaded = load_text(Path::new("m.toml"), text, &[], &Capabilities::default()).unwrap();
    let severities: Vec<_> = loaded.warnings.iter().map(|it| (it.severity, it.line)).collect();
    assert_eq!(severities, [(Severity::Warning, 3)]);
}

#[test]
fn roles_are_given_to_users_and_groups() {
    assert_eq!(understood("").control.acl, None);
    assert_eq!(understood("[control.acl]").control.acl, Some(BTreeMap::new()));
    let text = "[control.acl]\nanna = \"admin\"\n\"group:web\" = { role = \"operator\", apps = [\"shop*\"] }\n";
    let acl = understood(text).control.acl.unwrap();
    let said: Vec<_> = acl.iter().map(|(it, grant)| (it.to_string(), grant.role, grant.apps.clone())).collect();
    let expected = [
        ("user:anna".to_owned(), Role::Admin, None),
        ("group:web".to_owned(), Role::Operator, Some(vec!["shop*".to_owned()])),
    ];
    assert_eq!(said, expected);
    assert_eq!(acl.values().map(|it| it.origin.line).collect::<Vec<_>>(), [2, 3]);
    let shown = config::show(&understood(text)).to_string();
    assert!(shown.contains("group:web") && shown.contains("operator"), "{shown}");
}

#[test]
fn what_wakes_an_app_is_said_by_methods_and_paths() {
    let text = |process: &str| format!("[backends.a.process]\ncommand = \"x\"\n{process}\n");
    let wake_on = |process: &str| understood(&text(process)).backends["a"].process.clone().unwrap().wake_on;
    assert_eq!(wake_on("idle_timeout = 60"), WakeOn::default());
    let written = wake_on("idle_timeout = 60\nwake_on = { methods = [\"GET\"], paths = [\"/\", \"/shop/*\"] }");
    assert_eq!(written, WakeOn { methods: vec!["GET".into()], paths: vec!["/".into(), "/shop/*".into()] });
    let sleepless = load_text(Path::new("m.toml"), &text("wake_on.paths = [\"/\"]"), &[], &Capabilities::default());
    let warnings = sleepless.unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].key.ends_with("wake_on"), "{warnings:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*", key in "\\PC{0,12}", value in "\\PC{0,12}") {
        if let Err(problems) = with_set(&text, &key, &value) {
            problems.iter().for_each(|it| drop(it.render(Some(&text), true)));
        }
    }

    /// Lines that are nearly right reach far deeper than noise.
    #[test]
    fn shuffled_lines_never_panic(
        lines in proptest::collection::vec((0..LINES.len(), 0..LINES.len(), any::<prop::sample::Index>()), 1..20),
    ) {
        let mut text = String::new();
        for (a, b, cut) in lines {
            let (a, b) = (LINES[a], LINES[b]);
            let (left, right) = (cut.index(a.len() + 1), cut.index(b.len() + 1));
            text.push_str(a.get(..left).unwrap_or(a));
            text.push_str(if left % 3 == 0 { b.get(right..).unwrap_or(b) } else { a.get(left..).unwrap_or("") });
            text.push('\n');
        }
        if let Err(problems) = load_text(Path::new("m.toml"), &text, &[], &Capabilities::default()) {
            problems.iter().for_each(|it| drop(it.render(Some(&text), false)));
        }
    }
}

const LINES: &[&str] = &[
    "[server]",
    "[server.limits]",
    "[backends.\"a.example\"]",
    "[backends.\"a.example\".process]",
    "[backends.\"a.example\".routes.\"/x\"]",
    "[backends.\"a.example\".process.env]",
    "[ssl]",
    "[acme]",
    "[security.headers]",
    "http_port = 80",
    "bind = [\"[::1]\", 3]",
    "url = \"http://a:1\"",
    "urls = [\"unix:/x\", \"https://b\"]",
    "root = \"x\"",
    "redirect = { to = \"/y\" }",
    "respond = \"\"",
    "app_type = \"python\"",
    "command = \"\"",
    "instances = 99999999999999999999",
    "stop_signal = 9",
    "max_request_size = \"1e9GB\"",
    "keepalive_timeout = \"99999999999h\"",
    "ttl = 1979-05-27",
    "ratio = inf",
    "include = [\"/nonexistent/*/*.toml\"]",
    "é = \"${é}\"",
    "files = { index = [] }",
    "probes = { startup = { exec = [] } }",
    "eab = {}",
    "hold = []",
    "x = '''",
    "\"\" = 1",
];
