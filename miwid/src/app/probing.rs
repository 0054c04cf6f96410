//! The probe task of one attempt: fast while it starts, then at the health interval for as long as it lives. Before the
//! first good answer counts, it makes sure that the listener belongs to the instance: whoever took the port first must
//! not get a site's requests.

use std::time::Duration;

use super::{lifecycle::Event, sockets, tree};
use crate::upstream::{Address, Verdict, probe};

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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
}

impl Plan {
    async fn ask(&self) -> Verdict {
        probe(&self.address, &self.host, self.path.as_deref(), &self.expect, self.timeout).await
    }

    /// Runs until aborted or until nobody hears it any more.
    pub(super) async fn run<F: Future<Output = bool>>(self, tell: impl Fn(Event) -> F) {
        let mut pause = FIRST_PAUSE;
        loop {
            let event = match self.ask().await {
                Verdict::Good => self.clone().ownership().await,
                Verdict::Bad(why) => Event::ProbeBad(why),
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
        loop {
            tokio::time::sleep(self.interval).await;
            let event = match self.ask().await {
                Verdict::Good => Event::ProbeGood,
                Verdict::Bad(why) => Event::ProbeBad(why),
            };
            if !tell(event).await {
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
