//! The probe task of one attempt: fast while it starts, then at the health interval for as long as it lives. Before the
//! first good answer counts, it makes sure that the listener belongs to the instance: whoever took the port first must
//! not get a site's requests.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use super::{lifecycle::Event, sockets, spec::Gate, tree};
use crate::upstream::{Address, Verdict, probe};

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Every status that an app may have for its front page.
static ALL_BUT_404: LazyLock<Vec<u16>> = LazyLock::new(|| (200..600).filter(|status| *status != 404).collect());

/// What and how often to ask.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) address: Address,
    pub(super) host: String,
    pub(super) path: Option<String>,
    pub(super) expect: Vec<u16>,
    pub(super) timeout: Duration,
    pub(super) interval: Duration,
    pub(super) pid: u32,
    pub(super) mark: String,
    pub(super) gates: Vec<Gate>,
    /// A new instance is looked at more often for so long.
    pub(super) settle: Duration,
}

impl Plan {
    async fn ask(&self) -> Event {
        for gate in &self.gates {
            if let Err(event) = self.pass(gate).await {
                return event;
            }
        }
        match self.get(self.path.as_deref(), &self.expect).await {
            Verdict::Good => Event::ProbeGood,
            Verdict::Bad(why) => Event::ProbeBad(why),
        }
    }

    async fn get(&self, path: Option<&str>, expect: &[u16]) -> Verdict {
        probe(&self.address, &self.host, path, expect, self.timeout).await
    }

    async fn pass(&self, gate: &Gate) -> Result<(), Event> {
        let verdict = match gate {
            Gate::Decisive { path, .. } => self.get(Some(path), &[200]).await,
            // The operator's own check says more.
            Gate::Present { .. } if self.path.is_some() => return Ok(()),
            Gate::Present { path } => self.get(Some(path), &ALL_BUT_404).await,
        };
        match (verdict, gate) {
            (Verdict::Good, _) => Ok(()),
            (Verdict::Bad(why), Gate::Decisive { hint, .. }) if why.ends_with(": 503") => {
                Err(Event::Hopeless(format!("{hint} ({why})")))
            }
            (Verdict::Bad(why), _) => Err(Event::ProbeBad(why)),
        }
    }

    /// Runs until aborted or until nobody hears it any more.
    pub(super) async fn run<F: Future<Output = bool>>(self, tell: impl Fn(Event) -> F) {
        let mut pause = FIRST_PAUSE;
        loop {
            let event = match self.ask().await {
                Event::ProbeGood => self.clone().ownership().await,
                other => other,
            };
            let over = !matches!(event, Event::ProbeBad(_));
            if !tell(event).await {
                return;
            }
            if over {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5).min(LONGEST_PAUSE);
        }
        let settled = Instant::now() + self.settle * 2;
        let often = (self.settle / 4).clamp(FIRST_PAUSE, LONGEST_PAUSE).min(self.interval);
        loop {
            tokio::time::sleep(if Instant::now() < settled { often } else { self.interval }).await;
            if !tell(self.ask().await).await {
                return;
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
