//! The supervisor with real processes, started without the stub (a test binary cannot be it).

#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use super::{
    AppState, AppStatus, Handle, Progress, Refusal, RestartOptions, Supervisor,
    launcher::{self, Job, LaunchError, Launched, Launcher},
    spec::Launch,
};
use crate::{telemetry, upstream::Directory};

const PATIENCE: Duration = Duration::from_secs(30);
/// Listens on PORT until it is told to go.
const SERVER: &str = "import http.server, os, sys\n\
    print('listening', flush=True)\n\
    http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler).serve_forever()";

/// Starts programs directly, each in a group of its own.
struct Direct;

impl Launcher for Direct {
    fn launch(&self, launch: Launch) -> Job<Result<Launched, LaunchError>> {
        Box::pin(async move {
            let (stdout, out) = launcher::stream().unwrap();
            let (stderr, err) = launcher::stream().unwrap();
            let child = tokio::process::Command::new(&launch.argv[0])
                .args(&launch.argv[1..])
                .env_clear()
                .envs(launch.env.iter().map(|(key, value)| (key, value.expose())))
                .current_dir(&launch.working_dir)
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(err)
                .process_group(0)
                .spawn()
                .map_err(|error| LaunchError { step: "exec".into(), errno: error.raw_os_error().unwrap_or(0) })?;
            let pid = child.id().unwrap();
            Ok(Launched { pid, stdout, stderr, exit: launcher::exit_of(child) })
        })
    }
}

fn supervise(directory: &Path) -> Handle {
    let outside = Supervisor {
        directory: Directory::default(),
        events: telemetry::Events::default(),
        logs: telemetry::Logs::default(),
        metrics: telemetry::Metrics::default(),
        readiness: telemetry::Readiness::default(),
        state_dir: directory.join("state"),
        run_dir: directory.join("run"),
    };
    outside.start_with(Arc::new(Direct))
}

async fn until(handle: &Handle, what: &str, holds: impl Fn(&AppStatus) -> bool) -> AppStatus {
    let mut watch = handle.watch();
    let wait = async {
        loop {
            if let Some(status) = watch.borrow_and_update().iter().find(|status| holds(status)) {
                return status.clone();
            }
            watch.changed().await.expect("the supervisor lives");
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(status) => status,
        Err(_) => panic!("never {what}: {:?}", handle.statuses()),
    }
}

fn progress() -> Progress {
    tokio::sync::mpsc::unbounded_channel().0
}

fn kill(pid: u32) {
    super::tree::signal(pid, 9, config::KillMode::Process);
}

/// A configuration of one app with these lines in its `process`.
fn app(directory: &Path, args: &[&str], more: &str) -> Arc<config::Config> {
    let text = format!(
        "[logging.access_log]\npath = {log:?}\n[backends.\"shop.test\"]\nname = \"shop\"\napp_type = \"command\"\n\
         [backends.\"shop.test\".process]\ncommand = {command:?}\nargs = {args:?}\nworking_dir = {directory:?}\n\
         settle_time = \"50ms\"\nallow_root = true\n{more}",
        log = directory.join("logs/access.log"),
        command = args[0],
        args = &args[1..],
    );
    let loaded = config::load_text(&directory.join("miwid.toml"), &text, &[], &config::Capabilities::default());
    Arc::new(loaded.expect("a good configuration").config)
}

fn server(directory: &Path, more: &str) -> Arc<config::Config> {
    app(directory, &["/usr/bin/python3", "-c", SERVER], more)
}

/// The server needs Python; elsewhere these tests say that they did not run.
fn has_python() -> bool {
    let there = Path::new("/usr/bin/python3").exists();
    if !there {
        eprintln!("skipped: no /usr/bin/python3");
    }
    there
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_starts_survives_a_kill_restarts_rolling_and_stops() {
    if !has_python() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let handle = supervise(directory.path());
    let config = server(directory.path(), "");
    let converged = handle.converge(config.clone(), progress()).await;
    assert_eq!(converged.changes, [("shop".to_owned(), "started")], "{converged:?} {:?}", handle.statuses());
    let first = until(&handle, "running", |app| app.state == AppState::Running).await;
    let pid = first.instances[0].pid.unwrap();
    // An unchanged configuration touches nothing.
    assert_eq!(handle.converge(config, progress()).await.changes, [("shop".to_owned(), "unchanged")]);
    assert_eq!(handle.statuses()[0].instances[0].pid, Some(pid));

    kill(pid);
    let other = |app: &AppStatus| app.ready == 1 && app.instances.iter().all(|i| i.pid.is_some_and(|new| new != pid));
    let again = until(&handle, "another process", other).await;
    assert_eq!(again.restarts, 1);
    assert_eq!(again.instances[0].last_exit.as_ref().unwrap().signal.as_deref(), Some("SIGKILL"));

    let before = again.instances[0].pid;
    handle.restart("shop", RestartOptions::default(), "anna", progress()).await.unwrap();
    let rolled = until(&handle, "the second generation", |app| app.generation == 2 && app.ready == 1).await;
    assert_ne!(rolled.instances[0].pid, before);
    assert_ne!(rolled.instances[0].address, again.instances[0].address);

    handle.stop("shop", false, "anna", progress()).await.unwrap();
    let stopped = &handle.statuses()[0];
    assert_eq!((stopped.state, stopped.instances.len(), &stopped.operation), (AppState::Stopped, 0, &None));
    assert!(super::tree::processes().iter().all(|process| Some(process.pid) != rolled.instances[0].pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_before_ready_is_reported_with_its_code_and_last_lines() {
    let directory = tempfile::tempdir().unwrap();
    let handle = supervise(directory.path());
    let config = app(directory.path(), &["/bin/sh", "-c", "echo no settings >&2; exit 3"], "");
    let converged = handle.converge(config, progress()).await;
    assert!(converged.outdated[0].1.contains("code 3"), "{converged:?}");
    let failed = until(&handle, "a report", |app| app.report.contains("no settings")).await;
    assert!(failed.report.contains("code 3"), "{}", failed.report);
    let stopped = handle.stop("shop", false, "anna", progress()).await;
    assert!(stopped.is_ok(), "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_starts_by_itself_when_it_appears() {
    if !has_python() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let handle = supervise(directory.path());
    let program = directory.path().join("server");
    let config = app(directory.path(), &[program.to_str().unwrap(), "-c", SERVER], "");
    let converged = handle.converge(config, progress()).await;
    assert!(converged.outdated[0].1.contains("app-command-missing"), "{converged:?}");
    std::os::unix::fs::symlink("/usr/bin/python3", &program).unwrap();
    until(&handle, "running", |app| app.state == AppState::Running).await;
    handle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_reload_keeps_the_old_process_and_a_stop_supersedes_a_restart() {
    if !has_python() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let handle = supervise(directory.path());
    handle.converge(server(directory.path(), ""), progress()).await;
    let before = until(&handle, "running", |app| app.state == AppState::Running).await;
    let broken = app(directory.path(), &["/bin/sh", "-c", "exit 9"], "");
    let converged = handle.converge(broken, progress()).await;
    assert!(converged.outdated[0].1.contains("halted at 0/1"), "{converged:?}");
    assert_eq!(handle.statuses()[0].instances[0].pid, before.instances[0].pid);

    let slow = app(directory.path(), &["/bin/sh", "-c", "sleep 300"], "start_timeout = \"60s\"");
    let rolling = tokio::spawn({
        let handle = handle.clone();
        async move { handle.converge(slow, progress()).await }
    });
    until(&handle, "an operation", |app| app.operation.is_some()).await;
    let second = handle.scale("shop", 2, "ben", progress()).await;
    assert!(matches!(&second, Err(Refusal::Conflict(why)) if why.contains("the configuration")), "{second:?}");
    handle.stop("shop", true, "anna", progress()).await.unwrap();
    rolling.await.unwrap();
    handle.shutdown(PATIENCE).await;
    assert!(handle.statuses()[0].instances.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_the_wrong_port_fails_at_its_timeout_and_the_report_names_the_port() {
    if !has_python() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let handle = supervise(directory.path());
    let wrong = SERVER.replace("int(os.environ['PORT'])", "0");
    let config = app(directory.path(), &["/usr/bin/python3", "-c", &wrong], "start_timeout = \"2s\"");
    let converged = handle.converge(config, progress()).await;
    assert!(converged.outdated[0].1.starts_with("not ready within 2 s"), "{converged:?}");
    let failed = until(&handle, "a report", |app| !app.report.is_empty()).await;
    assert!(failed.report.contains("the process listens on 127.0.0.1:"), "{}", failed.report);
    handle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_port_restarts_by_hold_and_a_broken_new_version_gives_the_old_one_back() {
    if !has_python() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let handle = supervise(directory.path());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let fixed = |args: &[&str]| {
        let mut config = (*app(directory.path(), args, "")).clone();
        let url = config::UpstreamUrl::Http { host: "127.0.0.1".into(), port };
        for backend in config.backends.values_mut() {
            if let config::Target::App(proxy) = &mut backend.target {
                proxy.urls = vec![url.clone()];
            }
        }
        Arc::new(config)
    };
    handle.converge(fixed(&["/usr/bin/python3", "-c", SERVER]), progress()).await;
    let first = until(&handle, "running", |app| app.state == AppState::Running).await;
    assert_eq!(first.strategy, config::RestartStrategy::Hold);
    assert_eq!(first.instances[0].address, format!("127.0.0.1:{port}"));
    handle.restart("shop", RestartOptions::default(), "anna", progress()).await.unwrap();
    let second = until(&handle, "generation 2", |app| app.generation == 2 && app.ready == 1).await;
    assert_ne!(second.instances[0].pid, first.instances[0].pid);

    let converged = handle.converge(fixed(&["/bin/sh", "-c", "exit 9"]), progress()).await;
    assert!(converged.outdated[0].1.contains("code 9"), "{converged:?}");
    let back = until(&handle, "the old one back", |app| app.ready == 1).await;
    assert!(back.reason.starts_with("outdated: keeps generation 2"), "{}", back.reason);
    handle.shutdown(PATIENCE).await;
}
