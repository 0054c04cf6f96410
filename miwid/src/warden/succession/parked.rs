//! The machine at rest: when it may be taken along into another program, and how.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Engine, Leaving, Succession};
use crate::warden::{
    ladder::{Digest, Ladder},
    renewal::millis,
};

/// For the same warden as another program.
#[derive(Serialize, Deserialize)]
pub(in crate::warden) struct Parked {
    last: Engine,
    current: Option<Engine>,
    serving_ms: Option<u64>,
    leaving: Vec<Engine>,
    failures: u32,
    ladder: Ladder,
    digest: Option<Digest>,
    prove_ms: u64,
    proving_ms: Option<u64>,
    troubled: bool,
}

impl Succession {
    /// There is a reason, and nothing is under way: engines may drain, but nobody proves itself or is waited for.
    pub(in crate::warden) fn may_renew(&self) -> bool {
        self.renewal
            && self.serving_since.is_some()
            && self.next.is_none()
            && !self.stopping
            && self.leaving.iter().all(|it| it.quic.is_none())
    }

    pub(in crate::warden) fn renewed(&mut self) {
        self.renewal = false;
    }

    pub(in crate::warden) fn park(&self, now: Instant) -> Parked {
        Parked {
            last: self.last,
            current: self.current,
            serving_ms: self.serving_since.map(|it| millis(now.saturating_duration_since(it))),
            leaving: self.leaving.iter().map(|it| it.engine).collect(),
            failures: self.failures,
            ladder: self.ladder.clone(),
            digest: self.digest,
            prove_ms: millis(self.prove),
            proving_ms: self.proving.map(|it| millis(it.saturating_duration_since(now))),
            troubled: self.troubled,
        }
    }

    pub(in crate::warden) fn unpark(parked: Parked, now: Instant) -> Self {
        let millis = Duration::from_millis;
        Self {
            last: parked.last,
            current: parked.current,
            serving_since: parked.serving_ms.map(|it| now.checked_sub(millis(it)).unwrap_or(now)),
            proven: true,
            leaving: parked.leaving.into_iter().map(|engine| Leaving { engine, quic: None }).collect(),
            failures: parked.failures,
            ladder: parked.ladder,
            digest: parked.digest,
            prove: millis(parked.prove_ms),
            proving: parked.proving_ms.map(|it| now + millis(it)),
            troubled: parked.troubled,
            ..Self::default()
        }
    }
}
