//! The supervisor with real processes, started without the stub (a test binary cannot be it).

#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use indexmap::IndexMap;

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
