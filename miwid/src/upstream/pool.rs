//! Idle connections of one worker, by endpoint. Not shared: no lock.

/// A connection to an endpoint, ready for a request.
pub struct Connection {}

/// All pools of one worker.
#[derive(Default)]
pub struct Pools {}
