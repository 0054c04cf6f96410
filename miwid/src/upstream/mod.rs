//! Where requests go: named sets of endpoints, whose members are published and withdrawn while requests run. `app`
//! publishes here, `proxy` reads here; they know each other only through this room.

mod balance;
mod client;
mod connect;
mod connection;
mod directory;
mod endpoint;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod http1;
mod pool;
mod prober;
mod set;
mod stream;
#[cfg(test)]
mod tests;
mod transport;
mod workers;

pub use client::{Cause, SendError};
pub use connect::{ConnectError, Order};
pub use connection::{Connection, Head, Heard, Incoming};
pub use directory::Directory;
pub use endpoint::{Address, Endpoint, InFlight};
pub use health::{Verdict, probe};
pub use http1::PlainHead;
pub use pool::Pools;
pub use prober::Prober;
pub use set::{Availability, Held, Picked, Set, Stray, Unavailable};
pub use transport::{Protocol, Transport, Unusable};
pub use workers::Feed;
