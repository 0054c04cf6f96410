//! When an attempt is over: what it held is freed, and how it ended is written down for the operator.

use std::time::Instant;

use super::{InstanceState, base, cgroup, lifecycle::Cause, managed::Runner, report, supervisor::Core};
use crate::upstream::Address;

impl Core {
    /// The attempt is over: free what it held, write down how it ended.
    pub(super) fn record(&mut self, id: u64, cause: &Cause) {
        let starved = self.find(id).and_then(|(_, runner)| starved(runner, cause));
        let cause = starved.as_ref().unwrap_or(cause);
        let Some(app) = self.app_of(id).map(|app| app.name.clone()) else { return };
        let Some(runner) = self.find_mut(id) else { return };
        let (pid, address, spec) = (runner.pid.take(), runner.address.take(), runner.spec.clone());
        let name = runner.name.clone();
        runner.exited.cancel();
        runner.hearing.take().inspect(tokio::task::AbortHandle::abort);
        runner.launch = None;
        if let Some(group) = runner.group.take() {
            // Refused while something is left in it; the next daemon sweeps it.
            let _ = std::fs::remove_dir(group);
        }
        let room = runner.room.take();
        let lines = runner.last_lines.texts();
        if pid.is_some() {
            runner.last_exit = Some(report::exit(cause, runner.exit_status, lines.clone()));
            runner.started = None;
            (runner.memory_bytes, runner.cpu_percent, runner.cpu_ticks) = (0, 0.0, 0);
        }
        if let Some(room) = room {
            tokio::task::spawn_blocking(move || std::fs::remove_dir_all(room));
        }
        let has_base = spec.as_ref().is_some_and(|spec| spec.base.is_some());
        let base = base::place(&self.outside.state_dir, &app, &name);
        if has_base {
            // A directory that cannot be removed is swept at the next start of the daemon.
            tokio::task::spawn_blocking(move || std::fs::remove_dir_all(base));
        }
        if let (Some(spec), Some(address)) = (spec, &address) {
            self.addresses.free(&spec.address, address, Instant::now());
        }
        if report::is_failure(cause) {
            self.record_failure(id, &app, cause, address.as_ref(), &lines);
        } else if pid.is_some() {
            if let Some(app) = self.apps.get_mut(&app) {
                match cause {
                    Cause::Completed(_) => app.reason = report::sentence(cause),
                    Cause::Ignored { .. } | Cause::KilledNow => app.farewell = Some(report::sentence(cause)),
                    _ => app.farewell = None,
                }
            }
            self.outside.events.emit("app.exited", app, report::sentence(cause));
        }
    }

    fn record_failure(&mut self, id: u64, name: &str, cause: &Cause, address: Option<&Address>, lines: &[String]) {
        let Some((_, runner)) = self.find(id) else { return };
        let sentence = report::sentence(cause);
        let text = report::start_report(&report::Failed {
            app: name,
            slot: runner.slot,
            attempt: runner.attempt,
            next: runner.lane.retries_at().map(|at| at.saturating_duration_since(Instant::now())),
            steps: &runner.steps,
            took: runner.began.elapsed(),
            cause,
            last_lines: lines,
            hints: report::hints(cause, address, &runner.listening),
        });
        let slot = runner.slot;
        let Some(app) = self.apps.get_mut(name) else { return };
        // A preflight that fails every second is news once.
        let repeated = matches!(cause, Cause::Preflight(_)) && app.reason == sentence;
        if !repeated {
            app.restarts += u64::from(matches!(cause, Cause::Crashed(_)));
        }
        app.reason.clone_from(&sentence);
        app.report = text;
        if let Some(operation) = &mut app.operation {
            operation.failure = Some(sentence.clone());
            operation.say(format!("slot {slot}  {sentence}"));
        }
        if !repeated {
            self.outside.events.emit("app.failed", name, format!("slot {slot}: {sentence}"));
        }
        if let Some(runner) = self.find_mut(id) {
            // Preflight looks again by itself, and more closely.
            let stuck = runner.lane.state == InstanceState::Failed && !matches!(cause, Cause::Preflight(_));
            if !stuck {
                runner.watch = None;
            }
            runner.restarts += u64::from(!repeated);
        }
    }

    /// Once for each attempt.
    pub(super) fn tell_of_refused_forks(&mut self) {
        for app in self.apps.values_mut() {
            for runner in app.runners.iter_mut().filter(|it| !it.forks_refused) {
                let limit = runner.generation.backend.process.as_ref().and_then(|it| it.pids_limit);
                let Some((limit, group)) = limit.zip(runner.group.as_deref()) else { continue };
                runner.forks_refused = cgroup::refused_forks(group) > 0;
                if runner.forks_refused {
                    let what =
                        format!("slot {}: pids_limit = {limit} is reached, and no process more is made", runner.slot);
                    self.outside.events.emit("app.pids_limit", &app.name, what);
                }
            }
        }
    }
}

/// A SIGKILL that was not ours, in a group in which the kernel has killed for want of memory.
fn starved(runner: &Runner, cause: &Cause) -> Option<Cause> {
    let (Cause::Crashed(status) | Cause::BeforeReady(status)) = cause else { return None };
    let memory = cgroup::memory(runner.group.as_ref()?);
    let killed = status.signal == Some(nix::libc::SIGKILL) && memory.kills > 0;
    killed.then_some(Cause::OutOfMemory { limit: memory.limit, peak: memory.peak })
}
