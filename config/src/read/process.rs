//! `process` and the tables beside it: `python`, `nodejs`, `tomcat`, `jvm`.

use std::time::Duration;

use indexmap::IndexMap;

use crate::{
    AppLogs, AppType, AutoRestart, ByteSize, Hold, Interface, Jvm, KillMode, Listen, LogFormat, Nodejs, OnAllUnready,
    OnFailure, Probe, ProbeKind, Probes, Process, Python, RestartStrategy, Schedule, Secret, StreamDrain, Tomcat,
    WakeOn, section::Section, tree::Value, values,
};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// The process of a `backend`, whose table may be missing.
pub(super) fn process(backend: &Section<'_>, app_type: AppType) -> Process {
    let section = &backend.section("process");
    let seconds = |key, default| section.duration(key).unwrap_or(Duration::from_secs(default));
    judge(section);
    Process {
        origin: section.origin(),
        command: section.text("command"),
        args: section.texts("args").unwrap_or_default(),
        shell: section.flag("shell").unwrap_or(false),
        working_dir: section.path("working_dir").unwrap_or_else(|| section.resolve("")),
        working_dir_origin: section.origin_of("working_dir"),
        auto_restart: auto_restart(section),
        success_codes: section.integers("success_codes").unwrap_or_else(|| vec![0]),
        fatal_exit_codes: section.integers("fatal_exit_codes").unwrap_or_default(),
        env: env(&section.section("env")),
        env_file: section.path("env_file"),
        user: section.text("user"),
        group: section.text("group"),
        allow_root: section.flag("allow_root").unwrap_or(false),
        instances: section.integer("instances").unwrap_or(1),
        listen: section.choice("listen", &[Listen::Auto, Listen::Tcp, Listen::Unix]).unwrap_or_default(),
        start_timeout: seconds("start_timeout", start_seconds(app_type)),
        settle_time: section.duration("settle_time"),
        drain_timeout: seconds("drain_timeout", 30),
        stop_timeout: seconds("stop_timeout", if app_type == AppType::Tomcat { 20 } else { 10 }),
        stop_signal: stop_signal(section),
        kill_mode: section.choice("kill_mode", &[KillMode::Mixed, KillMode::Group, KillMode::Process]),
        restart_strategy: restart_strategy(section),
        hold: hold(&section.section("hold")),
        on_failure: section.choice("on_failure", &[OnFailure::Rollback, OnFailure::Halt]).unwrap_or_default(),
        memory_limit: section.size("memory_limit"),
        memory_restart: memory_restart(section),
        cpu_limit: section.number("cpu_limit"),
        pids_limit: section.integer("pids_limit"),
        max_requests: section.integer("max_requests"),
        max_lifetime: section.duration("max_lifetime"),
        restart_schedule: schedule(section),
        idle_timeout: section.duration("idle_timeout"),
        wake_on: wake_on(section),
        depends_on: section.texts("depends_on").unwrap_or_default(),
        pre_deploy: section.text("pre_deploy"),
        watch: section.flag("watch").unwrap_or(false),
        logs: logs(&section.section("logs")),
        stream_drain: stream_drain(section),
        on_all_unready: section
            .choice("on_all_unready", &[OnAllUnready::Serve, OnAllUnready::Refuse, OnAllUnready::Hold])
            .unwrap_or_default(),
        probes: probes(&section.section("probes")),
        python: python(&backend.section("python")),
        nodejs: nodejs(&backend.section("nodejs")),
        tomcat: tomcat(&backend.section("tomcat")),
        jvm: jvm(&backend.section("jvm")),
    }
}

fn start_seconds(app_type: AppType) -> u64 {
    match app_type {
        AppType::Tomcat | AppType::Java => 120,
        AppType::Command => 30,
        _ => 60,
    }
}

fn judge(section: &Section<'_>) {
    if section.text("command").is_some_and(|it| it.trim().is_empty()) {
        section.error_at("command", "`command` is empty", Some("name the program to run".into()));
    }
    if section.flag("shell") == Some(true) && section.has("args") {
        let hint = "write the arguments into `command`, or take `shell` out";
        section.error_at("args", "`args` are not for a shell line", Some(hint.into()));
    }
    let root = section.text("user").is_some_and(|it| it == "root" || it == "0");
    if root && section.flag("allow_root") != Some(true) {
        section.error_at(
            "user",
            "running as root has to be allowed",
            Some("add `allow_root = true`, or choose another user".into()),
        );
    }
}

/// As a size, whether it was written so or as a percentage of the limit.
fn memory_restart(section: &Section<'_>) -> Option<ByteSize> {
    let text = section.text("memory_restart")?;
    if let Some(size) = values::size(&text) {
        return Some(size);
    }
    let percent =
        text.strip_suffix('%').and_then(|it| it.trim().parse::<f64>().ok()).filter(|it| *it > 0.0 && *it <= 100.0);
    let Some(percent) = percent else {
        section.error_at(
            "memory_restart",
            format!("{text:?} is neither a size nor a percentage"),
            Some("write \"400MB\" or \"90%\"".into()),
        );
        return None;
    };
    let Some(limit) = section.size("memory_limit") else {
        let hint = "add `memory_limit`, or write a size";
        section.error_at("memory_restart", "there is no limit to take a percentage of", Some(hint.into()));
        return None;
    };
    Some(ByteSize((limit.bytes() as f64 * percent / 100.0) as u64))
}

fn schedule(section: &Section<'_>) -> Option<Schedule> {
    let parsed = Schedule::parse(&section.text("restart_schedule")?);
    let complain = |why: String| {
        section.error_at("restart_schedule", why, Some("every night at half past three: \"30 3 * * *\"".into()))
    };
    parsed.map_err(complain).ok()
}

fn auto_restart(section: &Section<'_>) -> AutoRestart {
    match (section.flag("auto_restart"), section.has("auto_restart")) {
        (Some(true), _) | (None, false) => AutoRestart::Always,
        (Some(false), _) => AutoRestart::Never,
        // The only text that it may be.
        (None, true) => AutoRestart::OnFailure,
    }
}

fn restart_strategy(section: &Section<'_>) -> RestartStrategy {
    use RestartStrategy::{Auto, Hold, Recreate, Rolling};
    section.choice("restart_strategy", &[Auto, Rolling, Hold, Recreate]).unwrap_or_default()
}

fn stop_signal(section: &Section<'_>) -> i32 {
    let number = section.integer("stop_signal");
    let number = number.or_else(|| values::signal(&section.text("stop_signal")?)).unwrap_or(SIGTERM);
    if number == SIGKILL {
        let hint = "write \"SIGTERM\"; whatever outlives `stop_timeout` is killed anyway";
        section.warning_at("stop_signal", "SIGKILL leaves the app no time to finish its requests", Some(hint.into()));
    }
    number
}

fn env(section: &Section<'_>) -> IndexMap<String, Secret> {
    let mut env = IndexMap::new();
    for (name, node) in section.keys() {
        if name.is_empty() || name.contains(['=', '\0']) {
            section.error_at_key(name, format!("{name:?} cannot be the name of a variable"), None);
        }
        let value = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
            _ => continue,
        };
        env.insert(name.clone(), Secret::new(value));
    }
    env
}

fn hold(section: &Section<'_>) -> Hold {
    Hold {
        max_requests: section.integer("max_requests").unwrap_or(512),
        timeout: section.duration("timeout").unwrap_or(Duration::from_secs(30)),
        release_concurrency: section.integer("release_concurrency").unwrap_or(64),
        on_start: section.flag("on_start").unwrap_or(true),
    }
}

fn wake_on(process: &Section<'_>) -> WakeOn {
    let section = process.section("wake_on");
    if section.present() && !process.has("idle_timeout") {
        let hint = "add `idle_timeout`, or take `wake_on` out";
        process.warning_at("wake_on", "the app never sleeps, so nothing has to wake it", Some(hint.into()));
    }
    for key in ["methods", "paths"] {
        if section.list(key, |_| Some(())).is_some_and(|it| it.is_empty()) {
            let hint = format!("take `{key}` out for all");
            section.error_at(key, "nothing could wake the app", Some(hint));
        }
    }
    let methods = section.texts("methods").unwrap_or_default();
    for method in methods.iter().filter(|it| !is_method(it)) {
        let hint = "methods are written in capitals: \"GET\"";
        section.error_at("methods", format!("{method:?} is not a method"), Some(hint.into()));
    }
    let paths = section.texts("paths").unwrap_or_default();
    for path in paths.iter().filter(|it| !is_path_pattern(it)) {
        let hint = "write a whole path, or the beginning of some and a `*`: \"/shop/*\"";
        section.error_at("paths", format!("{path:?} matches no path"), Some(hint.into()));
    }
    WakeOn { methods, paths }
}

/// No other letters: methods are told apart by them, and a `get` would never match.
fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || b"-_".contains(&it))
}

/// Without a query, and with a star at the end only.
fn is_path_pattern(text: &str) -> bool {
    !text.strip_suffix('*').unwrap_or(text).contains(['*', '?', '#'])
}

fn logs(section: &Section<'_>) -> AppLogs {
    AppLogs {
        path: section.path("path"),
        format: section.choice("format", &[LogFormat::Text, LogFormat::Json]).unwrap_or_default(),
        max_size: section.size("max_size"),
        max_backups: section.integer("max_backups"),
        rate_limit: section.size("rate_limit"),
    }
}

fn stream_drain(section: &Section<'_>) -> StreamDrain {
    match section.text("stream_drain").as_deref() {
        Some("wait") => StreamDrain::Wait,
        Some("now") => StreamDrain::Now,
        _ => {
            let written = section.duration("stream_drain");
            let after = written.or_else(|| section.section("stream_drain").duration("close_after"));
            StreamDrain::CloseAfter(after.unwrap_or(Duration::from_secs(5)))
        }
    }
}

fn probes(section: &Section<'_>) -> Probes {
    let probe = |key| probe(&section.section(key));
    Probes { startup: probe("startup"), readiness: probe("readiness"), liveness: probe("liveness") }
}

fn probe(section: &Section<'_>) -> Option<Probe> {
    if !section.present() {
        return None;
    }
    const KINDS: [&str; 5] = ["http", "tcp", "exec", "log", "notify"];
    let given: Vec<&str> = KINDS.into_iter().filter(|it| section.has(it)).collect();
    if given.len() != 1 {
        let hint = "give exactly one of `http`, `tcp`, `exec`, `log`, `notify`";
        section.error(format!("a probe has one way to ask, not {}", given.len()), Some(hint.into()));
    }
    if section.texts("exec").is_some_and(|it| it.is_empty()) {
        section.error_at("exec", "`exec` is empty", Some("name the program to run".into()));
    }
    let kind = match *given.first()? {
        "http" => {
            ProbeKind::Http { path: section.text("http")?, expect: section.integers("expect").unwrap_or_default() }
        }
        "tcp" => ProbeKind::Tcp,
        "exec" => ProbeKind::Exec { command: section.texts("exec")? },
        "log" => ProbeKind::Log { pattern: section.text("log")? },
        _ => ProbeKind::Notify,
    };
    Some(Probe {
        kind,
        interval: section.duration("interval").unwrap_or(Duration::from_secs(10)),
        timeout: section.duration("timeout").unwrap_or(Duration::from_secs(5)),
        failures: section.integer("failures").unwrap_or(3),
        successes: section.integer("successes").unwrap_or(1),
    })
}

fn python(section: &Section<'_>) -> Python {
    Python {
        app: section.text("app"),
        interface: section
            .choice("interface", &[Interface::Auto, Interface::Wsgi, Interface::Asgi])
            .unwrap_or_default(),
        server: section.text("server"),
        venv: section.path("venv"),
        workers: section.integer("workers"),
        threads: section.integer("threads"),
    }
}

fn nodejs(section: &Section<'_>) -> Nodejs {
    Nodejs { script: section.text("script"), package_manager: section.text("package_manager") }
}

fn tomcat(section: &Section<'_>) -> Tomcat {
    Tomcat {
        war: section.path("war"),
        context: section.text("context"),
        home: section.path("home"),
        base_template: section.path("base_template"),
    }
}

fn jvm(section: &Section<'_>) -> Jvm {
    Jvm {
        java_home: section.path("java_home"),
        heap: section.size("heap"),
        gc: section.text("gc"),
        options: section.texts("options").unwrap_or_default(),
        profile: section.text("profile"),
    }
}
