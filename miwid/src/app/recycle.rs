//! Replacing instances that still run: because a probe says that one is not well, because it has grown or is old, because
//! its hour has come. A replacement is a rollout like any other: the new one proves itself first, where two can live side
//! by side.

use std::time::{Duration, Instant};

use config::{Minute, Process};
use jiff::civil::DateTime;
use tokio::sync::{mpsc, oneshot};

use super::{
    InstanceState, RestartOptions,
    managed::{App, Runner},
    operation::{Kind, Operation},
    spec::Autopsy,
    supervisor::Core,
};

/// Samples in a row that are above the mark: one may be a peak that passes.
const HEAVY_SAMPLES: u32 = 3;
/// An app that grows faster than this is not helped by being replaced all the time.
const MEMORY_PAUSE: Duration = Duration::from_secs(300);
/// Minutes that are made up for after a pause of the machine, or a clock that was put forward.
const MINUTES_MAX: usize = 120;
const MIB: u64 = 1 << 20;

/// What an instance has gone through.
#[derive(Clone, Copy, Debug)]
struct Wear {
    memory: u64,
    heavy_samples: u32,
    /// How long ago one of the same app was replaced for its memory.
    lightened: Option<Duration>,
    requests: u64,
    age: Duration,
    /// 0.9 to 1.1, so that instances that started together do not go together.
    tolerance: f64,
}

/// Why an instance is due, in words.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Memory(String),
    Other(String),
}

fn due(process: &Process, wear: &Wear) -> Option<Due> {
    let may_lighten = wear.lightened.is_none_or(|ago| ago >= MEMORY_PAUSE) && wear.heavy_samples >= HEAVY_SAMPLES;
    if let Some(mark) = process.memory_restart.map(config::ByteSize::bytes).filter(|_| may_lighten) {
        let (memory, mark) = (wear.memory / MIB, mark / MIB);
        return Some(Due::Memory(format!("it uses {memory} MiB (memory_restart is {mark} MiB)")));
    }
    if process.max_requests.is_some_and(|most| wear.requests as f64 >= most as f64 * wear.tolerance) {
        return Some(Due::Other(format!("it has answered {} requests", wear.requests)));
    }
    if process.max_lifetime.is_some_and(|most| wear.age >= most.mul_f64(wear.tolerance)) {
        return Some(Due::Other(format!("it is {} s old", wear.age.as_secs())));
    }
    None
}

/// The minutes after `last` up to `now`, in local time. None when the clock went back: what was done once in that hour is
/// not done again. All of them when it went forward, so that nothing falls into the gap.
fn passed(last: DateTime, now: DateTime) -> Vec<DateTime> {
    let minutes = std::iter::successors(Some(last), |at| at.checked_add(jiff::Span::new().minutes(1)).ok());
    let mut passed: Vec<DateTime> = minutes.skip(1).take_while(|at| *at <= now).take(MINUTES_MAX + 1).collect();
    if passed.len() > MINUTES_MAX {
        passed = vec![now];
    }
    passed
}

fn minute(at: DateTime) -> Minute {
    let small = |number: i8| u8::try_from(number).unwrap_or_default();
    Minute {
        minute: small(at.minute()),
        hour: small(at.hour()),
        day: small(at.day()),
        month: small(at.month()),
        weekday: small(at.weekday().to_sunday_zero_offset()),
    }
}

fn this_minute() -> DateTime {
    let now = jiff::Zoned::now().datetime();
    now.with().second(0).subsec_nanosecond(0).build().unwrap_or(now)
}

// === impl Runner ===

impl Runner {
    /// One sample of its memory.
    pub(super) fn weigh(&mut self) {
        let process = self.generation.backend.process.as_ref();
        let mark = process.and_then(|it| it.memory_restart).map(config::ByteSize::bytes);
        let is_heavy = mark.is_some_and(|mark| self.memory_bytes > mark);
        self.heavy_samples = if is_heavy { self.heavy_samples.saturating_add(1) } else { 0 };
    }

    fn wear(&self, lightened: Option<Duration>) -> Wear {
        Wear {
            memory: self.memory_bytes,
            heavy_samples: self.heavy_samples,
            lightened,
            requests: self.endpoint.as_ref().map_or(0, |endpoint| endpoint.requests()),
            age: self.began.elapsed(),
            tolerance: self.tolerance,
        }
    }
}

// === impl App ===

impl App {
    /// Whether its hour has come since this was asked last.
    fn is_scheduled(&mut self, now: DateTime) -> bool {
        let schedule = self.loaded.process.as_ref().and_then(|process| process.restart_schedule.as_ref());
        let last = self.checked_minute.replace(self.checked_minute.map_or(now, |last| last.max(now)));
        let Some((schedule, last)) = schedule.zip(last) else { return false };
        passed(last, now).into_iter().any(|at| schedule.matches(minute(at)))
    }

    fn worn(&self, now: Instant) -> Option<(u32, Due)> {
        let lightened = self.lightened.map(|at| now.saturating_duration_since(at));
        let settled = self.runners.iter().filter(|it| it.lane.state == InstanceState::Ready && it.lane.settled);
        settled
            .filter_map(|it| Some((it.slot, due(it.generation.backend.process.as_ref()?, &it.wear(lightened))?)))
            .next()
    }
}

impl Core {
    /// Liveness has failed: what can be learnt of the patient is written down first, then it is replaced. One at a time for
    /// each app; whoever is still ill then asks again.
    pub(super) fn unwell(&mut self, id: u64, why: String) {
        let Some(runner) = self.find_mut(id) else { return };
        let (slot, pid) = (runner.slot, runner.pid);
        let autopsy = runner.spec.as_ref().map(|spec| spec.autopsy).unwrap_or_default();
        runner.unwell = true;
        let Some(name) = self.app_of(id).map(|app| app.name.clone()) else { return };
        self.outside.events.emit("app.unwell", &name, format!("slot {slot}: {why}"));
        if let (Autopsy::Dump, Some(pid)) = (autopsy, pid) {
            // The machine prints what each of its threads does, and goes on.
            self.launcher.signal(pid, nix::libc::SIGQUIT, config::KillMode::Process);
        }
        self.replace(&name, slot, format!("miwid, because it was not well: {why}"));
    }

    /// Looks at every app once a second.
    pub(super) fn recycle(&mut self) {
        let (now, minute) = (Instant::now(), this_minute());
        let names: Vec<String> = self.apps.keys().cloned().collect();
        for name in names {
            let Some(app) = self.apps.get_mut(&name) else { continue };
            let (scheduled, busy) = (app.is_scheduled(minute), app.operation.is_some());
            if scheduled && busy {
                self.outside.events.emit("app.schedule_skipped", &name, "something else runs on the app");
            } else if scheduled {
                self.renew(&name, None, "miwid, by its schedule".to_owned());
            } else if !busy {
                self.replace_worn(&name, now);
            }
        }
    }

    fn replace_worn(&mut self, name: &str, now: Instant) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let Some((slot, due)) = app.worn(now) else { return };
        let why = match due {
            Due::Memory(why) => {
                app.lightened = Some(now);
                why
            }
            Due::Other(why) => why,
        };
        self.outside.events.emit("app.recycled", name, format!("slot {slot}: {why}"));
        self.replace(name, slot, format!("miwid, because {why}"));
    }

    /// False: something else runs on the app.
    fn replace(&mut self, name: &str, slot: u32, holder: String) -> bool {
        self.renew(name, Some(slot), holder)
    }

    /// Replaces one slot, or all.
    pub(super) fn renew(&mut self, name: &str, slot: Option<u32>, holder: String) -> bool {
        let Some(app) = self.apps.get(name) else { return false };
        if app.operation.is_some() || app.stopped || app.idle || app.leaving || self.closing || app.runners.is_empty() {
            return false;
        }
        let operation = Operation::new(Kind::Replace, holder, mpsc::unbounded_channel().0, oneshot::channel().0);
        let options =
            RestartOptions { instance: slot, on_failure: Some(config::OnFailure::Halt), ..RestartOptions::default() };
        let (backend, spec) = (app.generation.backend.clone(), app.generation.spec.clone());
        self.begin_rollout(name, &options, operation, backend, spec);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i8, minute: i8) -> DateTime {
        jiff::civil::date(2026, 3, 29).at(hour, minute, 0, 0)
    }

    #[test]
    fn every_minute_counts_once_over_a_clock_that_is_put_forward_and_back() {
        assert_eq!(passed(at(1, 58), at(2, 0)), [at(1, 59), at(2, 0)]);
        assert_eq!(passed(at(2, 0), at(2, 0)), []);
        // Summer time: after 1:59 comes 3:00, and 2:30 is not lost.
        assert!(passed(at(1, 59), at(3, 0)).contains(&at(2, 30)));
        // Winter time: after 2:59 comes 2:00, and 2:30 is not done again.
        assert_eq!(passed(at(2, 59), at(2, 31)), []);
        assert_eq!(passed(at(2, 59), at(3, 0)), [at(3, 0)]);
        // A machine that slept for a day does not make up for all of it.
        assert_eq!(passed(at(0, 0), at(23, 0)), [at(23, 0)]);
    }

    #[test]
    fn an_instance_is_due_by_memory_requests_or_age() {
        let process = |text: &str| {
            let text = format!("[backends.\"a.test\"]\nprocess = {{ command = \"x\", {text} }}\n");
            let loaded =
                config::load_text(std::path::Path::new("m.toml"), &text, &[], &config::Capabilities::default());
            let config = loaded.expect("a configuration").config;
            config.backends.values().next().and_then(|it| it.process.clone()).expect("a process")
        };
        let new = Wear {
            memory: 500 * MIB,
            heavy_samples: 0,
            lightened: None,
            requests: 0,
            age: Duration::ZERO,
            tolerance: 0.9,
        };
        let ago = |seconds| Some(Duration::from_secs(seconds));
        for (text, wear, expected) in [
            ("memory_restart = \"400MB\"", Wear { heavy_samples: 2, ..new }, None),
            (
                "memory_restart = \"400MB\"",
                Wear { heavy_samples: 3, ..new },
                Some("it uses 500 MiB (memory_restart is 400 MiB)"),
            ),
            ("memory_restart = \"400MB\"", Wear { heavy_samples: 9, lightened: ago(299), ..new }, None),
            (
                "memory_restart = \"400MB\"",
                Wear { heavy_samples: 3, lightened: ago(300), ..new },
                Some("it uses 500 MiB (memory_restart is 400 MiB)"),
            ),
            // What else is due does not wait.
            (
                "memory_restart = \"400MB\", max_requests = 1000",
                Wear { heavy_samples: 9, lightened: ago(1), requests: 900, ..new },
                Some("it has answered 900 requests"),
            ),
            (
                "memory_limit = \"500MB\", memory_restart = \"80%\"",
                Wear { heavy_samples: 3, ..new },
                Some("it uses 500 MiB (memory_restart is 400 MiB)"),
            ),
            ("max_requests = 1000", Wear { requests: 899, ..new }, None),
            ("max_requests = 1000", Wear { requests: 900, ..new }, Some("it has answered 900 requests")),
            ("max_lifetime = \"10s\"", Wear { age: Duration::from_secs(8), ..new }, None),
            ("max_lifetime = \"10s\"", Wear { age: Duration::from_secs(9), ..new }, Some("it is 9 s old")),
        ] {
            let why = due(&process(text), &wear).map(|due| match due {
                Due::Memory(why) | Due::Other(why) => why,
            });
            assert_eq!(why.as_deref(), expected, "{text}");
        }
    }
}
