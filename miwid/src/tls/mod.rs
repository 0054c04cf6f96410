//! TLS as a server speaks it: which certificate for which name, under which policy, and what was settled.

mod terminator;

pub use terminator::{Refusal, Terminator, Tls};
