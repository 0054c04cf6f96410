//! What makes a daemon an engine: its line to the warden, and the orders that come over it.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{fitness::Recent, notify, start::StartError};
use crate::link::{Answers, Beginning, Kept, Line, Mode, Order, Takeover, ToWarden};

/// So long an upgrade to this engine can be taken back.
const CONFIRM: Duration = Duration::from_secs(10);

pub(super) struct Engine {
    pub(super) line: Line,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) number: u64,
    pub(super) mode: Mode,
    /// When the warden began.
    pub(super) since: Instant,
    pub(super) recent: Recent,
    /// How the engine before has answered.
    pub(super) before: Answers,
}

// === impl Engine ===

impl Engine {
    pub(super) fn of(beginning: Option<Beginning>) -> (Option<Self>, Kept) {
        let Some(Beginning { line, orders, engine: number, mode, age, kept, .. }) = beginning else {
            return (None, Kept::new());
        };
        notify::through(line.clone());
        let now = Instant::now();
        let (since, recent, before) = (now.checked_sub(age).unwrap_or(now), Recent::default(), Answers::default());
        (Some(Self { line, orders, number, mode, since, recent, before }), kept)
    }

    /// All is built: now the one before lets go, if there is one.
    pub(super) async fn wait_until_told(&mut self) -> Result<Takeover, StartError> {
        let confirm_ms = u64::try_from(confirm().as_millis()).unwrap_or_default();
        self.line.say(ToWarden::Ready { confirm_ms });
        loop {
            match self.orders.recv().await {
                Some(Order::Go(takeover)) => {
                    self.before = takeover.before;
                    return Ok(takeover);
                }
                Some(Order::Alone) | None => return Err(StartError::Refused("the warden has gone".to_owned())),
                Some(_) => {}
            }
        }
    }
}

/// Tests have no ten seconds; what is released has no such variable.
pub(super) fn confirm() -> Duration {
    let tested = cfg!(debug_assertions).then(|| std::env::var("MIWID_TEST_CONFIRM_MS").ok()).flatten();
    tested.and_then(|it| it.parse().ok()).map_or(CONFIRM, Duration::from_millis)
}
