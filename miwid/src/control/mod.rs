//! The control plane: a gRPC service on a Unix socket, through which miwictl looks and commands. It decides nothing
//! itself: it hands each call to the room that owns the matter and reports how that went.

mod access;
mod audit;
mod convert;
mod incoming;
mod operations;
mod plane;
mod serve;
mod service;
#[cfg(feature = "cloudflare")]
mod sight;
mod socket;

pub use access::exists;
pub use operations::{Ending, Operations, Order};
pub use plane::{Control, Course, Facts, NoUpgrade, Request, Upgrade};
pub use serve::Error as ServeError;
pub use socket::{Error, Place, Socket, choose};
