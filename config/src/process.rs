//! Reads `[backends.HOST.process]` and the runtime tables beside it.
//!
//! Defaults depend on the app's type: a JVM gets longer to start than a command.

use std::{path::PathBuf, time::Duration};

use crate::{
    Secret,
    globals::log_format,
    model::*,
    section::Section,
    tree::{Node, Value},
};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The runtime tables are always read, so that their mistakes are found even when nothing uses them.
pub(crate) fn process(s: &Section<'_>, backend: &Section<'_>, app_type: AppType, files: &mut Vec<PathBuf>) -> Process {
    let start = match app_type {
        AppType::Tomcat | AppType::Java => 120,
        AppType::Command => 30,
        _ => 60,
    };
    let stop = if app_type == AppType::Tomcat { 20 } else { 10 };
    let env_file = s.path("env_file");
    files.extend(env_file.clone());
    Process {
        origin: s.at.clone(),
        command: s.text("command"),
        args: s.texts("args").unwrap_or_default(),
        shell: s.flag("shell").unwrap_or(false),
        working_dir: s
            .path("working_dir")
            .unwrap_or_else(|| s.at.file.parent().map_or_else(PathBuf::new, PathBuf::from)),
        working_dir_origin: s.origin("working_dir"),
        auto_restart: auto_restart(s),
        success_codes: s.numbers("success_codes").unwrap_or_else(|| vec![0]),
        fatal_exit_codes: s.numbers("fatal_exit_codes").unwrap_or_default(),
        env: s.texts_by_key("env").into_iter().map(|(k, v)| (k, Secret::new(v))).collect(),
        env_file,
        user: s.text("user"),
        group: s.text("group"),
        allow_root: s.flag("allow_root").unwrap_or(false),
        instances: s.number("instances").unwrap_or(1),
        listen: s
            .choice("listen", &[("auto", Listen::Auto), ("tcp", Listen::Tcp), ("unix", Listen::Unix)])
            .unwrap_or_default(),
        start_timeout: s.duration("start_timeout").unwrap_or(seconds(start)),
        settle_time: s.duration("settle_time"),
        drain_timeout: s.duration("drain_timeout").unwrap_or(seconds(30)),
        stop_timeout: s.duration("stop_timeout").unwrap_or(seconds(stop)),
        stop_signal: stop_signal(s),
        kill_mode: s.choice(
            "kill_mode",
            &[("mixed", KillMode::Mixed), ("group", KillMode::Group), ("process", KillMode::Process)],
        ),
        restart_strategy: restart_strategy(s),
        hold: hold(&s.section("hold")),
        on_failure: s
            .choice("on_failure", &[("rollback", OnFailure::Rollback), ("halt", OnFailure::Halt)])
            .unwrap_or_default(),
        memory_limit: s.size("memory_limit"),
        memory_restart: s.text("memory_restart"),
        cpu_limit: s.float("cpu_limit"),
        pids_limit: s.number("pids_limit"),
        max_requests: s.number("max_requests"),
        max_lifetime: s.duration("max_lifetime"),
        restart_schedule: s.text("restart_schedule"),
        idle_timeout: s.duration("idle_timeout"),
        depends_on: s.texts("depends_on").unwrap_or_default(),
        pre_deploy: s.text("pre_deploy"),
        watch: s.flag("watch").unwrap_or(false),
        logs: logs(&s.section("logs")),
        stream_drain: stream_drain(s),
        on_all_unready: s
            .choice(
                "on_all_unready",
                &[("serve", OnAllUnready::Serve), ("refuse", OnAllUnready::Refuse), ("hold", OnAllUnready::Hold)],
            )
            .unwrap_or_default(),
        probes: probes(&s.section("probes")),
        python: python(&backend.section("python")),
        nodejs: nodejs(&backend.section("nodejs")),
        tomcat: tomcat(&backend.section("tomcat")),
        jvm: jvm(&backend.section("jvm")),
    }
}

fn auto_restart(s: &Section<'_>) -> AutoRestart {
    match s.node("auto_restart").map(|node| &node.value) {
        None | Some(Value::Boolean(true)) => AutoRestart::Always,
        Some(Value::Boolean(false)) => AutoRestart::Never,
        Some(Value::Text(text)) if text == "on-failure" => AutoRestart::OnFailure,
        Some(_) => {
            s.wrong("auto_restart", "expected true, false or \"on-failure\"", None);
            AutoRestart::Always
        }
    }
}

fn restart_strategy(s: &Section<'_>) -> RestartStrategy {
    let all = [
        ("auto", RestartStrategy::Auto),
        ("rolling", RestartStrategy::Rolling),
        ("hold", RestartStrategy::Hold),
        ("recreate", RestartStrategy::Recreate),
    ];
    s.choice("restart_strategy", &all).unwrap_or_default()
}

fn stop_signal(s: &Section<'_>) -> i32 {
    const SIGNALS: [(&str, i32); 8] =
        [("TERM", 15), ("INT", 2), ("QUIT", 3), ("HUP", 1), ("USR1", 10), ("USR2", 12), ("KILL", 9), ("WINCH", 28)];
    let found = match s.node("stop_signal").map(|node| &node.value) {
        None => Some(15),
        Some(Value::Integer(n)) => i32::try_from(*n).ok().filter(|n| (1..=64).contains(n)),
        Some(Value::Text(text)) => {
            let upper = text.to_ascii_uppercase();
            let name = upper.strip_prefix("SIG").unwrap_or(&upper);
            let number = name.parse().ok().filter(|n| (1..=64).contains(n));
            number.or_else(|| SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, n)| *n))
        }
        Some(_) => None,
    };
    found.unwrap_or_else(|| {
        s.wrong("stop_signal", "not a signal", Some("use \"SIGTERM\", \"SIGINT\", \"SIGQUIT\" or a number"));
        15
    })
}

fn hold(s: &Section<'_>) -> Hold {
    Hold {
        max_requests: s.number("max_requests").unwrap_or(512),
        timeout: s.duration("timeout").unwrap_or(seconds(30)),
        release_concurrency: s.number("release_concurrency").unwrap_or(64),
        on_start: s.flag("on_start").unwrap_or(true),
    }
}

fn logs(s: &Section<'_>) -> AppLogs {
    AppLogs {
        path: s.path("path"),
        format: log_format(s),
        max_size: s.size("max_size"),
        max_backups: s.number("max_backups"),
        rate_limit: s.size("rate_limit"),
    }
}

fn stream_drain(s: &Section<'_>) -> StreamDrain {
    match s.node("stream_drain").map(|node| &node.value) {
        None => StreamDrain::Wait,
        Some(Value::Text(text)) if text == "wait" => StreamDrain::Wait,
        Some(Value::Text(text)) if text == "now" => StreamDrain::Now,
        Some(_) => StreamDrain::CloseAfter(s.duration("stream_drain").unwrap_or_default()),
    }
}

fn probes(s: &Section<'_>) -> Probes {
    let one = |key| probe(&s.section(key));
    Probes { startup: one("startup"), readiness: one("readiness"), liveness: one("liveness") }
}

fn probe(s: &Section<'_>) -> Option<Probe> {
    let expect = s.numbers("expect").unwrap_or_default();
    let mut kinds = Vec::new();
    kinds.extend(s.text("http").map(|path| ProbeKind::Http { path, expect }));
    kinds.extend(s.flag("tcp").filter(|on| *on).map(|_| ProbeKind::Tcp));
    kinds.extend(s.texts("exec").map(|command| ProbeKind::Exec { command }));
    kinds.extend(s.text("log").map(|pattern| ProbeKind::Log { pattern }));
    kinds.extend(s.flag("notify").filter(|on| *on).map(|_| ProbeKind::Notify));
    if s.present() && kinds.len() != 1 {
        s.faulty("a probe needs exactly one kind", "write one of http, tcp, exec, log, notify");
    }
    let (interval, timeout) = (s.duration("interval"), s.duration("timeout"));
    let (failures, successes) = (s.number("failures"), s.number("successes"));
    kinds.pop().map(|kind| Probe {
        kind,
        interval: interval.unwrap_or(seconds(10)),
        timeout: timeout.unwrap_or(seconds(5)),
        failures: failures.unwrap_or(3),
        successes: successes.unwrap_or(1),
    })
}

fn python(s: &Section<'_>) -> Python {
    Python {
        app: s.text("app"),
        interface: s
            .choice("interface", &[("auto", Interface::Auto), ("wsgi", Interface::Wsgi), ("asgi", Interface::Asgi)])
            .unwrap_or_default(),
        server: s.text("server"),
        venv: s.path("venv"),
        workers: s.number("workers"),
        threads: s.number("threads"),
    }
}

fn nodejs(s: &Section<'_>) -> Nodejs {
    Nodejs { script: s.text("script"), package_manager: s.text("package_manager") }
}

fn tomcat(s: &Section<'_>) -> Tomcat {
    Tomcat {
        war: s.path("war"),
        context: s.text("context"),
        home: s.path("home"),
        base_template: s.path("base_template"),
    }
}

fn jvm(s: &Section<'_>) -> Jvm {
    Jvm {
        java_home: s.path("java_home"),
        heap: s.size("heap"),
        gc: s.text("gc"),
        options: s.texts("options").unwrap_or_default(),
        profile: s.text("profile"),
    }
}

/// Whether a node is there at all, as a name for readers.
pub(crate) fn given(node: Option<&Node>) -> bool {
    node.is_some()
}
