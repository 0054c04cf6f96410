//! `miwictl status`: one screen.

use std::time::Duration;

use proto::v1::{App, StatusReply, StatusRequest};

use super::{connect, lasting::went_away};
use crate::{
    cli::Globals,
    client,
    error::{Error, FAILED, Result},
    output,
};

/// Between two engines the warden keeps the socket, and nobody answers: the next one may not last either.
const BETWEEN: Duration = Duration::from_secs(3);
/// How often it is asked for.
const EACH: Duration = Duration::from_secs(1);

pub(super) async fn run(globals: &Globals, check: bool, watch: bool) -> Result {
    if watch {
        return tokio::select! {
            ended = watched(globals) => ended,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
    }
    let socket = globals.socket.as_deref();
    let Some(trouble) = client::trouble(socket) else { return show(globals, check).await };
    match tokio::time::timeout(BETWEEN, show(globals, check)).await {
        Ok(Ok(())) => Err(trouble.answered()),
        Ok(Err(error)) if error.answered => Err(trouble.answered()),
        // What a warden has left that is gone is no news.
        Ok(Err(error)) => Err(if client::is_deserted(socket).await { error } else { trouble }),
        Err(_) => Err(trouble),
    }
}

async fn show(globals: &Globals, check: bool) -> Result {
    let status = connect(globals).await?.daemon().status(StatusRequest {}).await?.into_inner();
    output::document(globals, &status, screen);
    if check { judged(&status) } else { Ok(()) }
}

/// Again whenever something has changed, also from one engine to the next.
async fn watched(globals: &Globals) -> Result {
    let client = connect(globals).await?;
    let mut shown = String::new();
    loop {
        match client.daemon().status(StatusRequest {}).await {
            Ok(reply) => {
                let text = screen(reply.get_ref());
                if changed(&shown, &text) {
                    output::object(globals, reply.get_ref(), |_| text.clone());
                    shown = text;
                }
            }
            Err(gone) => {
                if !went_away(&gone) || client::is_deserted(globals.socket.as_deref()).await {
                    return Err(gone.into());
                }
            }
        }
        tokio::time::sleep(EACH).await;
    }
}

/// The first line has the uptime, which always changes.
fn changed(before: &str, now: &str) -> bool {
    let below = |text: &str| text.split_once('\n').map(|(_, below)| below.to_owned());
    before.is_empty() || below(before) != below(now)
}

fn judged(status: &StatusReply) -> Result {
    if status.state == "ready" {
        return Ok(());
    }
    let reasons = status.reasons.join("; ");
    Err(Error::new(FAILED, "degraded", format!("the daemon is {} {reasons}", status.state).trim_end()).answered())
}

fn screen(status: &StatusReply) -> String {
    let path = if status.config_path.is_empty() { "built-in" } else { &status.config_path };
    let mut text = format!(
        "miwid {}  pid {}  {}  up {}  config {} (generation {})  workers {}\n",
        status.version,
        status.pid,
        status.state,
        span(status.uptime_seconds),
        path,
        status.config_generation,
        status.workers
    );
    for listener in &status.listeners {
        text.push_str(&format!("listening on {}  {}\n", listener.address, listener.protocols.join(" ")));
    }
    for reason in &status.reasons {
        text.push_str(&format!("degraded: {reason}\n"));
    }
    if !status.apps.is_empty() {
        text.push('\n');
        text.push_str(&apps(&status.apps));
    }
    text
}

/// The table of apps; `app list` shows it too.
pub(super) fn apps(apps: &[App]) -> String {
    let head = ["APP", "STATE", "READY", "GEN", "UPTIME", "RESTARTS", "CPU", "MEM", "SITE", "REASON"];
    output::table(head, apps.iter().map(row))
}

fn row(app: &App) -> [String; 10] {
    let uptime = app.instances.iter().map(|instance| instance.uptime_seconds).max();
    // The sum of nothing is -0.
    let cpu: f64 = app.instances.iter().map(|instance| instance.cpu_percent).sum::<f64>() + 0.0;
    let memory: u64 = app.instances.iter().map(|instance| instance.memory_bytes).sum();
    [
        app.name.clone(),
        app.state.clone(),
        format!("{}/{}", app.ready, app.desired),
        app.generation.to_string(),
        uptime.map_or_else(|| "-".to_owned(), span),
        app.restarts.to_string(),
        format!("{cpu:.0}%"),
        format!("{} MiB", memory >> 20),
        app.site.clone(),
        app.reason.clone(),
    ]
}

/// The largest whole unit: `12 d`, `3 h`, `40 s`.
fn span(seconds: u64) -> String {
    match seconds {
        86_400.. => format!("{} d", seconds / 86_400),
        3600.. => format!("{} h", seconds / 3600),
        60.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_has_the_daemon_first_and_each_app_on_a_line() {
        let app = App { name: "shop".into(), state: "running".into(), ready: 2, desired: 2, ..App::default() };
        let status =
            StatusReply { version: "0.1.0".into(), state: "ready".into(), apps: vec![app], ..StatusReply::default() };
        let text = screen(&status);
        assert!(text.starts_with("miwid 0.1.0"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("shop") && line.contains("2/2")), "{text}");
    }

    #[test]
    fn only_ready_is_healthy() {
        for (state, exit) in [("ready", None), ("degraded", Some(6)), ("starting", Some(6)), ("draining", Some(6))] {
            let status = StatusReply { state: state.into(), ..StatusReply::default() };
            assert_eq!(judged(&status).err().map(|error| error.exit), exit, "{state}");
        }
    }
}
