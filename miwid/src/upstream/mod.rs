//! Where requests go: named sets of endpoints, whose members are published and withdrawn while requests run. `app`
//! publishes here, `proxy` reads here; they know each other only through this room.

mod balance;
mod directory;
mod endpoint;
mod health;
mod pool;
mod set;

pub use directory::{Directory, Feed};
pub use endpoint::{Address, Endpoint, InFlight};
pub use health::{Prober, Verdict, probe};
pub use pool::{Connection, Pools};
pub use set::{Availability, Picked, Set, Unavailable};
