//! The probe task of one attempt: fast while it starts, then at the probes' intervals for as long as it lives. Before the
//! first good answer counts, it makes sure that the listener belongs to the instance: whoever took the port first must
//! not get a site's requests.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use super::{lifecycle::Event, lines::Needle, notices::Notices, questions::Exec, sockets, spec::Gate, tree};
use crate::upstream::{Address, Verdict, probe};

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A program that is started to ask takes more than a look at a socket.
const EXEC_PAUSE: Duration = Duration::from_millis(250);
/// Every status that an app may have for its front page.
static ALL_BUT_404: LazyLock<Vec<u16>> = LazyLock::new(|| (200..600).filter(|status| *status != 404).collect());

/// One way to ask.
#[derive(Clone, Debug)]
pub(super) enum Question {
    Http {
        path: String,
        expect: Vec<u16>,
    },
    Tcp,
    Exec(Arc<Exec>),
    /// A line of output had the text.
    Log(Arc<Needle>),
    /// It said so itself.
    Notify(Arc<Notices>),
    /// It says again and again that it is alive.
    Heartbeat(Arc<Notices>),
}

#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) question: Question,
    pub(super) timeout: Duration,
    pub(super) interval: Duration,
    /// Bad answers in a row that count.
    pub(super) failures: u32,
}

/// What and how often to ask.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) address: Address,
    pub(super) host: String,
    pub(super) startup: Option<Ask>,
    pub(super) readiness: Ask,
    pub(super) liveness: Option<Ask>,
    pub(super) pid: u32,
    pub(super) mark: String,
    pub(super) gates: Vec<Gate>,
    /// A new instance is looked at more often for so long.
    pub(super) settle: Duration,
}

/// What is to be told.
#[derive(Debug)]
pub(super) enum Told {
    Event(Event),
    /// Liveness has failed as often as it may.
    Unwell(String),
}

impl Plan {
    /// Runs until aborted or until nobody hears it any more.
    pub(super) async fn run<F: Future<Output = bool>>(self, tell: impl Fn(Told) -> F) {
        if self.start(&tell).await {
            tokio::join!(self.stay_ready(&tell), self.stay_alive(&tell));
        }
    }

    /// True: it is ready.
    async fn start<F: Future<Output = bool>>(&self, tell: &impl Fn(Told) -> F) -> bool {
        let mut startup = self.startup.as_ref();
        let runs_program = |ask: &Ask| matches!(ask.question, Question::Exec(_));
        let slow = startup.is_some_and(runs_program) || runs_program(&self.readiness);
        let mut pause = if slow { EXEC_PAUSE } else { FIRST_PAUSE };
        loop {
            let verdict = match startup {
                Some(ask) => self.ask(ask).await,
                None => Verdict::Good,
            };
            let event = match verdict {
                Verdict::Good => {
                    startup = None;
                    self.ready().await
                }
                Verdict::Bad(why) => Event::ProbeBad(why),
            };
            let event = if event == Event::ProbeGood { self.clone().ownership().await } else { event };
            let (good, over) = (event == Event::ProbeGood, !matches!(event, Event::ProbeBad(_)));
            if !tell(Told::Event(event)).await {
                return false;
            }
            if over {
                return good;
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5).min(LONGEST_PAUSE);
        }
    }

    async fn stay_ready<F: Future<Output = bool>>(&self, tell: &impl Fn(Told) -> F) {
        let settled = Instant::now() + self.settle * 2;
        let interval = self.readiness.interval;
        let often = (self.settle / 4).clamp(FIRST_PAUSE, LONGEST_PAUSE).min(interval);
        loop {
            tokio::time::sleep(if Instant::now() < settled { often } else { interval }).await;
            if !tell(Told::Event(self.ready().await)).await {
                return;
            }
        }
    }

    async fn stay_alive<F: Future<Output = bool>>(&self, tell: &impl Fn(Told) -> F) {
        let Some(ask) = &self.liveness else { return };
        let mut failures = 0;
        loop {
            tokio::time::sleep(ask.interval).await;
            let Verdict::Bad(why) = self.ask(ask).await else {
                failures = 0;
                continue;
            };
            failures += 1;
            if failures < ask.failures {
                continue;
            }
            failures = 0;
            if !tell(Told::Unwell(why)).await {
                return;
            }
        }
    }

    /// The checks of its type and the one that was configured.
    async fn ready(&self) -> Event {
        for gate in &self.gates {
            if let Err(event) = self.pass(gate).await {
                return event;
            }
        }
        match self.ask(&self.readiness).await {
            Verdict::Good => Event::ProbeGood,
            Verdict::Bad(why) => Event::ProbeBad(why),
        }
    }

    async fn pass(&self, gate: &Gate) -> Result<(), Event> {
        let timeout = self.readiness.timeout;
        let verdict = match gate {
            Gate::Decisive { path, .. } => self.get(Some(path), &[200], timeout).await,
            // The operator's own check says more.
            Gate::Present { .. } if !matches!(self.readiness.question, Question::Tcp) => return Ok(()),
            Gate::Present { path } => self.get(Some(path), &ALL_BUT_404, timeout).await,
        };
        match (verdict, gate) {
            (Verdict::Good, _) => Ok(()),
            (Verdict::Bad(why), Gate::Decisive { hint, .. }) if why.ends_with(": 503") => {
                Err(Event::Hopeless(format!("{hint} ({why})")))
            }
            (Verdict::Bad(why), _) => Err(Event::ProbeBad(why)),
        }
    }

    async fn get(&self, path: Option<&str>, expect: &[u16], timeout: Duration) -> Verdict {
        probe(&self.address, &self.host, path, expect, timeout).await
    }

    async fn ask(&self, ask: &Ask) -> Verdict {
        let judged = |good: bool, why: String| if good { Verdict::Good } else { Verdict::Bad(why) };
        match &ask.question {
            Question::Http { path, expect } => self.get(Some(path), expect, ask.timeout).await,
            Question::Tcp => self.get(None, &[], ask.timeout).await,
            Question::Exec(exec) => exec.ask(ask.timeout).await,
            Question::Log(needle) => judged(needle.is_found(), format!("no line with {:?} yet", needle.text())),
            Question::Notify(notices) => judged(notices.is_ready(), notices.describe("READY=1")),
            Question::Heartbeat(notices) => {
                judged(notices.beats_within(ask.interval + ask.timeout), notices.describe("WATCHDOG=1"))
            }
        }
    }

    async fn ownership(self) -> Event {
        tokio::task::spawn_blocking(move || {
            let pids = tree::pids(self.pid, &self.mark);
            match sockets::owner(&self.address) {
                Some(owner) if !pids.contains(&owner.pid) => Event::NotOurs(format!(
                    "{} is served by another process (pid {} \"{}\", user {})",
                    self.address, owner.pid, owner.command, owner.user
                )),
                // Nobody found: `/proc` may hide the owner, and the app did answer.
                _ => Event::ProbeGood,
            }
        })
        .await
        .unwrap_or(Event::ProbeGood)
    }
}
