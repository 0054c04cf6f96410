//! What warden and engine say to each other, and the descriptors that go along. An engine's fd 0 is a SEQPACKET socket to its
//! warden: a message is one packet, so nobody has to find where it ends, and no descriptor is ever adopted by its number.

mod identity;
mod line;
mod message;
mod packet;
mod place;

pub(crate) use identity::forget;
pub use identity::{Identity, began_as_root};
pub use line::{Beginning, Heir, Instead, Line, Order, Secrets, Takeover};
pub use message::{Answers, Exit, Mode, PROTOCOL, ToEngine, ToWarden};
pub use packet::{Packet, begin, memory, pair, read_memory, receive, send};
pub use place::trouble_beside;

/// The name (`argv[0]`) under which the warden starts this program as an engine.
pub const ENGINE: &str = "miwid-engine";
/// The name under which a warden goes on as another program.
pub const WARDEN: &str = "miwid-warden";

/// Descriptors by what they are: `tcp:0.0.0.0:443`, `control:/run/miwid/control.sock`.
pub type Kept = std::collections::BTreeMap<String, Vec<std::os::fd::OwnedFd>>;
