//! Requests that wait because the app restarts, wakes up or is paused. A bounded room, not a queue for overload: over
//! the bound a request is refused at once, and a client that leaves frees its place by dropping the future.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use super::wake::{WakeRules, may_wake};
use crate::{
    exchange::{Failure, reason},
    upstream::{Availability, InFlight, Set, Stray, Unavailable},
};

const RETRY_AFTER_FULL: Duration = Duration::from_secs(2);
const RETRY_AFTER_STOPPED: Duration = Duration::from_secs(30);
/// Somebody else may have woken it by then.
const RETRY_AFTER_IDLE: Duration = Duration::from_secs(30);

/// Who asks for an endpoint, and for what.
pub(super) struct Caller<'a> {
    pub client: IpAddr,
    pub method: &'a Method,
    /// As routes see it.
    pub path: &'a str,
    pub wake_on: &'a WakeRules,
}

/// A request that may go to an endpoint.
pub(super) struct Admitted {
    pub in_flight: InFlight,
    /// Kept until the response head by a request that was held: so many at once are released.
    pub _release: Option<OwnedSemaphorePermit>,
    /// Kept as long by one that is no reason for the app to stay awake.
    pub _stray: Option<Stray>,
}

impl Admitted {
    pub(super) fn of(in_flight: InFlight) -> Self {
        Self { in_flight, _release: None, _stray: None }
    }
}

/// An endpoint for this request, waiting for one when the set says that it is worth it.
pub(super) async fn admit(set: &Arc<Set>, caller: Caller<'_>, tried: &[u64]) -> Result<Admitted, Failure> {
    match set.pick(caller.client, tried) {
        Ok(picked) => {
            let is_stray = !caller.wake_on.is_anything() && !may_wake(caller.wake_on, caller.method, caller.path);
            Ok(Admitted { _stray: is_stray.then(|| set.enter_stray()), ..Admitted::of(picked.in_flight) })
        }
        Err(Unavailable::NoEndpoint) => Err(no_endpoint()),
        Err(Unavailable::Wait(why)) => {
            refusal(&why, &caller)?;
            let _held = set.enter_hold().ok_or_else(|| {
                Failure::upstream(
                    StatusCode::SERVICE_UNAVAILABLE,
                    reason::HOLD_FULL,
                    "Too many requests wait for the app.",
                )
                .retry_after(RETRY_AFTER_FULL)
            })?;
            // Boxed, as all that is seldom done: the memory of every request would have room for it.
            Box::pin(tokio::time::timeout(set.hold_timeout(), wait(set, &caller))).await.unwrap_or_else(|_| {
                Err(Failure::upstream(
                    StatusCode::GATEWAY_TIMEOUT,
                    reason::HOLD_TIMEOUT,
                    "The app did not become ready in time.",
                ))
            })
        }
    }
}

async fn wait(set: &Arc<Set>, caller: &Caller<'_>) -> Result<Admitted, Failure> {
    loop {
        // Subscribed before looking, so that no change falls between the look and the wait.
        let changed = set.changed();
        match set.pick(caller.client, &[]) {
            Ok(picked) => {
                // Not counted in while it waits for its turn: the endpoint could not be drained.
                drop(picked);
                let permit = set.release().acquire_owned().await.ok();
                if let Ok(picked) = set.pick(caller.client, &[]) {
                    return Ok(Admitted { _release: permit, ..Admitted::of(picked.in_flight) });
                }
            }
            Err(Unavailable::NoEndpoint) => return Err(no_endpoint()),
            Err(Unavailable::Wait(why)) => {
                refusal(&why, caller)?;
                if why == Availability::Idle {
                    set.demand();
                }
                changed.await;
            }
        }
    }
}

/// The states that are not worth waiting for.
fn refusal(why: &Availability, caller: &Caller<'_>) -> Result<(), Failure> {
    match why {
        Availability::Idle if !may_wake(caller.wake_on, caller.method, caller.path) => {
            let message = "The app sleeps, and this request does not wake it.";
            Err(Failure::upstream(StatusCode::SERVICE_UNAVAILABLE, reason::APP_IDLE, message)
                .retry_after(RETRY_AFTER_IDLE))
        }
        Availability::Stopped => {
            Err(Failure::upstream(StatusCode::SERVICE_UNAVAILABLE, reason::APP_STOPPED, "The app is stopped.")
                .retry_after(RETRY_AFTER_STOPPED))
        }
        // Where the next attempt is near enough to wait for, its supervisor says `Holding`.
        Availability::Failed { retry_after } => {
            Err(Failure::upstream(StatusCode::SERVICE_UNAVAILABLE, reason::APP_FAILED, "The app does not start.")
                .retry_after(*retry_after))
        }
        _ => Ok(()),
    }
}

pub(super) fn no_endpoint() -> Failure {
    Failure::upstream(StatusCode::SERVICE_UNAVAILABLE, reason::NO_ENDPOINT, "No server is available for this site.")
        .retry_after(Duration::from_secs(1))
}
