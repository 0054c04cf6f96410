//! Sleep: an app that nobody asks for has no processes, and the first request wakes it while it waits. Probes are not
//! requests, nor is what `wake_on` leaves out; requests that wait are.

use std::time::{Duration, Instant};

use super::{
    InstanceState,
    handle::Pace,
    managed::App,
    supervisor::{Core, Message},
};
use crate::upstream::Availability;

/// When an app was asked for last, as seen once a second.
#[derive(Debug)]
pub(super) struct Activity {
    requests: u64,
    at: Instant,
}

// === impl Activity ===

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self { requests: 0, at: now }
    }

    /// `requests` are all that its instances have begun and that matter, `busy` says that some are still under way.
    fn quiet_for(&mut self, requests: u64, busy: bool, now: Instant) -> Duration {
        if requests != self.requests || busy {
            (self.requests, self.at) = (requests, now);
        }
        now.saturating_duration_since(self.at)
    }
}

// === impl App ===

impl App {
    fn is_sleepy(&mut self, now: Instant) -> bool {
        let timeout = self.loaded.process.as_ref().and_then(|process| process.idle_timeout);
        let endpoints = || self.runners.iter().filter_map(|runner| runner.endpoint.as_ref());
        let requests: u64 = endpoints().map(|endpoint| endpoint.requests()).sum();
        // Only whether it changes counts, so that it may wrap when endpoints go.
        let (strays, straying) = self.set.strays();
        let requests = requests.wrapping_sub(strays);
        let settled = self.runners.iter().all(|it| it.lane.state == InstanceState::Ready && it.lane.settled);
        let busy = !settled || self.operation.is_some() || self.paused || self.set.held() > 0;
        let busy = busy || endpoints().map(|endpoint| endpoint.in_flight()).sum::<usize>() > straying;
        let quiet = self.activity.quiet_for(requests, busy, now);
        let may_sleep = !self.idle && !self.stopped && !self.leaving && !self.runners.is_empty();
        may_sleep && timeout.is_some_and(|timeout| quiet >= timeout)
    }
}

// === impl Core ===

impl Core {
    /// Looks at every app once a second.
    pub(super) fn lull(&mut self) {
        let now = Instant::now();
        let sleepy = |app: &mut App| app.is_sleepy(now).then(|| app.name.clone());
        let names: Vec<String> = self.apps.values_mut().filter_map(sleepy).collect();
        if self.closing {
            return;
        }
        for name in names {
            self.doze(&name);
            self.outside.events.emit("app.idle", &name, "nobody asks for it: it sleeps until somebody does");
            self.stop_runners(&name, Pace::Drain);
        }
    }

    /// From now on the app waits for a request.
    pub(super) fn doze(&mut self, name: &str) {
        let Some(app) = self.apps.get_mut(name) else { return };
        app.idle = true;
        // Said before anything is withdrawn, so that no request finds neither an endpoint nor a reason to wait.
        app.tell(Availability::Idle);
        let (set, news, waked) = (app.set.clone(), self.news.clone(), name.to_owned());
        let waiting = tokio::spawn(async move {
            set.demanded().await;
            // Refused only when the supervisor has gone.
            let _ = news.send(Message::Demand(waked)).await;
        });
        // One that an operator woke otherwise has left its own behind.
        if let Some(before) = app.waiting.replace(waiting.abort_handle()) {
            before.abort();
        }
    }

    /// A request waits for an app that sleeps.
    pub(super) fn wake(&mut self, name: &str) {
        let Some(app) = self.apps.get_mut(name).filter(|app| app.idle) else { return };
        app.idle = false;
        app.activity = Activity::new(Instant::now());
        if app.stopped || app.leaving || self.closing {
            return;
        }
        self.outside.events.emit("app.waking", name, "a request waits for it");
        self.fill(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_what_is_under_way_keep_it_awake() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut activity = Activity::new(start);
        assert_eq!(activity.quiet_for(0, false, at(5)), Duration::from_secs(5));
        assert_eq!(activity.quiet_for(1, false, at(6)), Duration::ZERO);
        assert_eq!(activity.quiet_for(1, true, at(9)), Duration::ZERO);
        assert_eq!(activity.quiet_for(1, false, at(12)), Duration::from_secs(3));
    }
}
