//! What systemd is told: ready, status, watchdog, stopping. Without `NOTIFY_SOCKET` every call is a no-op.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

use crate::{
    app::{self, AppState},
    telemetry::{Readiness, State},
};

/// Without a watchdog the status line is still kept fresh.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// READY as soon as the listeners accept: requests to apps that still start are held. Then the status line, and the
/// watchdog as long as every worker moves.
pub(super) fn start(readiness: Readiness, apps: app::Handle) -> JoinHandle<()> {
    let watchdog = sd_notify::watchdog_enabled();
    say(&[NotifyState::Ready, NotifyState::Status(&status(&readiness, &apps))]);
    tokio::spawn(async move {
        let mut changes = apps.watch();
        let mut interval = tokio::time::interval(watchdog.map_or(STATUS_EVERY, |it| it / 2).min(STATUS_EVERY));
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
            say(&[NotifyState::Status(&status(&readiness, &apps))]);
            if watchdog.is_some() && readiness.stuck_workers().is_empty() {
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
