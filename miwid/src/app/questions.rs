//! From the configuration to the probes of one attempt, and the probe that is a program.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use config::{Probe, ProbeKind};
use tokio::{io::AsyncReadExt, net::unix::pipe};

use super::{
    launcher::Launcher,
    lines::Needle,
    managed::{Runner, app_proxy},
    notices::Notices,
    probing::{Ask, Plan, Question, Told},
    spec::Launch,
    supervisor::{Core, Message, News},
    tree,
};
use crate::upstream::Verdict;

/// What a program that is asked may print into its reason.
const OUTPUT_BYTES: u64 = 4_096;

/// A program that exits with 0 when all is well. It runs as the app does.
pub(super) struct Exec {
    launch: Launch,
    launcher: Arc<dyn Launcher>,
}

/// What an attempt needs for its probes before it starts.
#[derive(Clone, Debug, Default)]
pub(super) struct Senses {
    pub(super) needle: Option<Arc<Needle>>,
    pub(super) notices: Option<Arc<Notices>>,
}

impl std::fmt::Debug for Exec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exec").field("argv", &self.launch.argv).finish_non_exhaustive()
    }
}

/// Whatever happens to a check, its processes do not stay.
struct Sweep {
    pid: u32,
    mark: String,
    launcher: Arc<dyn Launcher>,
}

impl Drop for Sweep {
    fn drop(&mut self) {
        tokio::spawn(self.launcher.kill_tree(self.pid, std::mem::take(&mut self.mark), None));
    }
}

// === impl Exec ===

impl Exec {
    pub(super) async fn ask(&self, timeout: Duration) -> Verdict {
        let name = self.launch.argv.first().map(String::as_str).unwrap_or_default();
        match tokio::time::timeout(timeout, self.run()).await {
            Ok(Ok(())) => Verdict::Good,
            Ok(Err(why)) => Verdict::Bad(format!("{name}: {why}")),
            Err(_) => Verdict::Bad(format!("{name}: no answer within {} s", timeout.as_secs_f64())),
        }
    }

    async fn run(&self) -> Result<(), String> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // A mark of its own: it is not one of the instance's processes.
        let mark = format!("probe-{}", LAST.fetch_add(1, Relaxed));
        let mut launch = self.launch.clone();
        launch.env.retain(|(key, _)| key != tree::MARK);
        launch.env.push((tree::MARK.into(), config::Secret::new(mark.clone())));
        let started = self.launcher.launch(launch).await.map_err(|error| error.to_string())?;
        let sweep = Sweep { pid: started.pid, mark, launcher: self.launcher.clone() };
        let (out, err, status) = tokio::join!(read(started.stdout), read(started.stderr), started.exit);
        drop(sweep);
        if status.code == Some(0) {
            return Ok(());
        }
        let said = if err.trim().is_empty() { out } else { err };
        let last = said.lines().rfind(|line| !line.trim().is_empty()).map(|line| format!(": {line}"));
        Err(format!("{}{}", super::report::status_words(status), last.unwrap_or_default()))
    }
}

async fn read(mut pipe: pipe::Receiver) -> String {
    let mut text = Vec::new();
    let _ = (&mut pipe).take(OUTPUT_BYTES).read_to_end(&mut text).await;
    // The rest is read, too, so that nobody waits for us.
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&text).into_owned()
}

// === impl Senses ===

impl Senses {
    /// Makes what the probes of `process` listen to, and tells the app of it. A socket lies beside that of the app, or in a
    /// directory of its own.
    pub(super) fn prepare(
        process: &config::Process,
        launch: &mut Launch,
        place: impl FnOnce() -> io::Result<std::path::PathBuf>,
    ) -> io::Result<(Self, Option<tokio::net::UnixDatagram>)> {
        let probes = [&process.probes.startup, &process.probes.readiness, &process.probes.liveness];
        let kinds = || probes.into_iter().flatten().map(|probe| &probe.kind);
        let needle = kinds().find_map(|kind| match kind {
            ProbeKind::Log { pattern } => Some(Arc::new(Needle::new(pattern))),
            _ => None,
        });
        if !kinds().any(|kind| *kind == ProbeKind::Notify) {
            return Ok((Self { needle, notices: None }, None));
        }
        let (notices, socket) = Notices::bind(&place()?, launch.user.as_ref())?;
        launch.env.retain(|(key, _)| key != "NOTIFY_SOCKET" && key != "WATCHDOG_USEC");
        launch.env.push(("NOTIFY_SOCKET".into(), config::Secret::new(notices.path().display().to_string())));
        if let Some(Probe { kind: ProbeKind::Notify, interval, .. }) = &process.probes.liveness {
            launch.env.push(("WATCHDOG_USEC".into(), config::Secret::new(interval.as_micros().to_string())));
        }
        Ok((Self { needle, notices: Some(Arc::new(notices)) }, Some(socket)))
    }

    /// Of an instance that has been ready already: what it says once it has said.
    pub(super) fn recall(&self) {
        self.needle.iter().for_each(|it| it.recall());
        self.notices.iter().for_each(|it| it.recall());
    }
}

// === impl Core ===

impl Core {
    pub(super) fn probe(&mut self, id: u64) {
        let Some(plan) = self.find(id).and_then(|(_, runner)| self.plan(runner)) else { return };
        let Some((_, runner)) = self.find(id) else { return };
        let (attempt, news) = (runner.attempt, self.news.clone());
        let task = tokio::spawn(plan.run(move |told| {
            let news = news.clone();
            let told = match told {
                Told::Event(event) => News::Lane(event),
                Told::Unwell(why) => News::Unwell(why),
            };
            let message = Message::Attempt { runner: id, attempt, news: Box::new(told) };
            async move { news.send(message).await.is_ok() }
        }));
        if let Some(runner) = self.find_mut(id) {
            runner.probing = Some(task.abort_handle());
        }
    }

    fn plan(&self, runner: &Runner) -> Option<Plan> {
        let backend = &runner.generation.backend;
        let process = backend.process.as_ref()?;
        let (health, address) = (&app_proxy(backend)?.health, runner.address.clone()?);
        let usual = Ask {
            question: match &health.path {
                Some(path) => Question::Http { path: path.clone(), expect: health.expect.clone() },
                None => Question::Tcp,
            },
            timeout: health.timeout,
            interval: health.interval,
            failures: 3,
        };
        let ask = |probe: &Option<Probe>| probe.as_ref().and_then(|probe| self.ask(probe, runner));
        let liveness = ask(&process.probes.liveness).map(|ask| Ask {
            question: match ask.question {
                Question::Notify(notices) => Question::Heartbeat(notices),
                other => other,
            },
            ..ask
        });
        let is_unnamed = backend.host.starts_with(['*', '_']);
        Some(Plan {
            address,
            host: if is_unnamed { "localhost".into() } else { backend.host.clone() },
            startup: ask(&process.probes.startup),
            readiness: ask(&process.probes.readiness).unwrap_or(usual),
            liveness,
            gates: runner.spec.as_ref().map(|spec| spec.gates.clone()).unwrap_or_default(),
            settle: runner.generation.rules.settle_time,
            pid: runner.pid?,
            mark: runner.name.clone(),
        })
    }

    fn ask(&self, probe: &Probe, runner: &Runner) -> Option<Ask> {
        let question = match &probe.kind {
            ProbeKind::Http { path, expect } => Question::Http { path: path.clone(), expect: expect.clone() },
            ProbeKind::Tcp => Question::Tcp,
            ProbeKind::Exec { command } => {
                let launch = Launch { argv: command.clone(), group: None, ..runner.launch.clone()? };
                Question::Exec(Arc::new(Exec { launch, launcher: self.launcher.clone() }))
            }
            ProbeKind::Log { .. } => Question::Log(runner.senses.needle.clone()?),
            ProbeKind::Notify => Question::Notify(runner.senses.notices.clone()?),
        };
        Some(Ask { question, timeout: probe.timeout, interval: probe.interval, failures: probe.failures.max(1) })
    }
}
