//! Waiting for a condition with a deadline: the only way a test lets time pass.
//!
//! A deadline is generous on purpose. It bounds how long a broken build blocks the run; it measures nothing.

use std::{fmt::Debug, future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` is true and panics with `what` when it is not before the deadline.
pub async fn until<F, Fut>(deadline: Duration, what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = Instant::now() + deadline;
    while !condition().await {
        assert!(Instant::now() < end, "after {deadline:?} still not so: {what}");
        sleep(INTERVAL).await;
    }
}

/// Waits until `probe` yields something, and returns it.
pub async fn for_some<T, F, Fut>(deadline: Duration, what: &str, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "after {deadline:?} still not there: {what}");
        sleep(INTERVAL).await;
    }
}

/// Waits until `read` yields a value that `accept` likes; the last value seen is part of the panic.
pub async fn for_value<T, F, Fut, A>(deadline: Duration, what: &str, mut read: F, accept: A) -> T
where
    T: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = T>,
    A: Fn(&T) -> bool,
{
    let end = Instant::now() + deadline;
    loop {
        let value = read().await;
        if accept(&value) {
            return value;
        }
        assert!(Instant::now() < end, "after {deadline:?} still not so: {what}; last seen: {value:#?}");
        sleep(INTERVAL).await;
    }
}

/// The deadline for things that take a moment: a start, a reload, a restart.
pub const SOON: Duration = Duration::from_secs(20);
/// The deadline for things with a drain, a backoff or a real interpreter in them.
pub const LATER: Duration = Duration::from_secs(90);
