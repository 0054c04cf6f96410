//! What systemd is told: ready, status, watchdog, stopping. Without `NOTIFY_SOCKET` every call is a no-op.

use std::{sync::OnceLock, time::Duration};

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

use crate::{
    app::{self, AppState},
    link::{Line, ToWarden},
    telemetry::{Readiness, State},
};

/// Whom the service manager listens to, when it is not this process.
static WARDEN: OnceLock<Line> = OnceLock::new();

/// From now on the warden passes on what is said.
pub(super) fn through(warden: Line) {
    let _ = WARDEN.set(warden);
}

/// Without a watchdog the status line is still kept fresh.
const STATUS_EVERY: Duration = Duration::from_secs(5);
const ALIVE_EVERY: Duration = Duration::from_secs(2);

/// READY as soon as the listeners accept: requests to apps that still start are held. Then the status line, and the
/// watchdog as long as every worker moves. A warden has its own view of the watchdog: it hears often that this engine lives.
pub(super) fn start(readiness: Readiness, apps: app::Handle) -> JoinHandle<()> {
    let watchdog = sd_notify::watchdog_enabled();
    let every = WARDEN.get().map(|_| ALIVE_EVERY).or(watchdog.map(|it| it / 2)).unwrap_or(STATUS_EVERY);
    say(&[NotifyState::Ready, NotifyState::Status(&status(&readiness, &apps))]);
    tokio::spawn(async move {
        let (mut changes, mut last) = (apps.watch(), String::new());
        let mut interval = tokio::time::interval(every.min(STATUS_EVERY));
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
            let said = status(&readiness, &apps);
            if said != last {
                say(&[NotifyState::Status(&said)]);
                last = said;
            }
            let moves = readiness.stuck_workers().is_empty();
            if let Some(warden) = WARDEN.get().filter(|_| moves) {
                warden.say(ToWarden::Alive);
            }
            if watchdog.is_some() && moves {
                say(&[NotifyState::Watchdog]);
            }
        }
    })
}

pub(super) fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

pub(super) fn reloading() {
    say(&[NotifyState::Status("reloading")]);
}

pub(super) fn reloaded() {
    say(&[NotifyState::Status("reloaded")]);
}

fn say(states: &[NotifyState<'_>]) {
    if let Some(warden) = WARDEN.get() {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        return warden.say(ToWarden::Notify { text: lines.join("\n") });
    }
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

/// `ready, 19/20 apps up; blog: exited before ready (code 1)`.
fn status(readiness: &Readiness, apps: &app::Handle) -> String {
    let apps = apps.statuses();
    let state = match readiness.state() {
        State::Starting => "starting",
        State::Ready => "ready",
        State::Degraded => "degraded",
        State::Draining => "draining",
    };
    let up = apps.iter().filter(|it| it.state == AppState::Running).count();
    let mut text = format!("{state}, {up}/{} apps up", apps.len());
    for app in apps.iter().filter(|it| !it.reason.is_empty() && it.state != AppState::Running) {
        text.push_str(&format!("; {}: {}", app.name, app.reason));
    }
    text
}
