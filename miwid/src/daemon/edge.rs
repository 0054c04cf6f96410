//! What is looked after once a day with Cloudflare: its ranges, and whether the token is about to end.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::gauges::seconds_until;
use crate::{
    cloudflare::{Api, Keeper},
    reload::Reloader,
    telemetry::{Events, Metrics},
    tls::Clock,
};

/// After the start: whatever else is asked then goes first.
const TOKEN_AFTER: Duration = Duration::from_secs(60);
const TOKEN_EVERY: Duration = Duration::from_secs(86_400);

/// Ranges are asked for only where they count; a reload that makes them count is noticed within a minute.
pub(super) async fn keep(keeper: Arc<Keeper>, reloader: Reloader, events: Events, metrics: Metrics) {
    let clock = Clock::new();
    let (end, known) = watch::channel(None);
    let (told, telling) = (clock.clone(), known);
    metrics.on_scrape(Box::new(move |gauges| {
        if let Some(at) = *telling.borrow() {
            gauges.token(seconds_until(at, told.now()));
        }
    }));
    let mut tick = tokio::time::interval(clock.tick());
    let mut token_at = clock.now() + TOKEN_AFTER;
    loop {
        tick.tick().await;
        let (config, now) = (reloader.config(), clock.now());
        let cloudflare = &config.cloudflare;
        if (cloudflare.trust || cloudflare.only)
            && keeper.is_due(now)
            && let Err(error) = keeper.refresh(cloudflare.api_base.as_deref(), now).await
        {
            tracing::warn!(%error, "Cloudflare's ranges stay as they were");
        }
        let Some(api) = Api::of(cloudflare) else {
            end.send_replace(None);
            continue;
        };
        if now >= token_at {
            token_at = now + TOKEN_EVERY;
            let state = api.token_ends_in(now).await.ok();
            if let Some((_, left)) = &state {
                end.send_replace(left.map(|it| now + it));
            }
            if let Some(said) = about_token(state) {
                events.emit("cloudflare.token", "", said);
            }
        }
    }
}

/// Advice only: whether a token may do what is wanted shows when it is wanted. Pure.
fn about_token(state: Option<(String, Option<Duration>)>) -> Option<String> {
    const DAYS: u64 = 86_400;
    let (status, left) = state?;
    if status != "active" {
        return Some(format!("the API token is {status}: certificates will not be renewed"));
    }
    let days = left?.as_secs() / DAYS;
    // Told once a day, so it is told on the days that matter.
    matches!(days, 29 | 6 | 0 | 1).then(|| format!("the API token expires within {} days", days + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_ends_is_told_of_at_30_7_and_in_the_last_days() {
        let told = |status: &str, days: Option<u64>| {
            let left = days.map(|it| Duration::from_secs(it * 86_400 + 3600));
            about_token(Some((status.to_owned(), left))).is_some()
        };
        let days: Vec<u64> = (0..60).filter(|it| told("active", Some(*it))).collect();
        assert_eq!(days, [0, 1, 6, 29]);
        assert!(!told("active", None));
        assert!(told("disabled", None));
        assert_eq!(about_token(None), None);
    }
}
