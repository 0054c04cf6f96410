//! Every set by its identity, so that a reload carries them over; and the line to each worker, so that a withdrawal
//! reaches every pool.

use std::sync::Arc;

use super::{Pools, Set};

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Directory {}

impl Directory {
    /// The set called `name`; made when it is new, reconfigured in place (strategy, hold bounds) when it exists.
    /// Static addresses are converged (unchanged endpoints keep their health and connections); a managed set keeps the
    /// endpoints that its app published.
    pub fn set(&self, name: &str, proxy: &config::Proxy, hold: Option<&config::Hold>) -> Arc<Set> {
        let _ = (name, proxy, hold);
        Arc::new(Set {})
    }

    /// Forgets the sets that `keep` does not name, withdrawing their endpoints.
    pub fn retain(&self, keep: &dyn Fn(&str) -> bool) {
        let _ = keep;
    }

    pub fn sets(&self) -> Vec<Arc<Set>> {
        Vec::new()
    }

    /// Registers a worker; its task must run `Feed::run` for ever.
    pub fn worker(&self) -> Feed {
        Feed {}
    }
}

/// What a worker hears from the directory.
pub struct Feed {}

impl Feed {
    /// Closes idle connections to withdrawn endpoints and acknowledges. Runs on the worker's own thread.
    pub async fn run(self, pools: std::rc::Rc<Pools>) {
        let _ = pools;
    }
}
