//! Certificates that renew themselves: what is wanted, when it is due, who is asked, what an answer must be like, and the one
//! task that does it.
//!
//! ```text
//!            wish (configuration, operator)
//!              │
//!   renewal::due ── not yet ──> looked at again within a minute
//!              │ now
//!   lock ─> key and request on the disk ─> issuer ─> checks ─> store ─> shown by the next handshake
//!              │                             │          │
//!              └── another daemon was first  └── failed ┴── the old one stays, back-off, never given up
//! ```

mod acme;
mod advice;
mod checks;
mod clock;
mod commands;
#[cfg(feature = "cloudflare")]
mod dns;
mod entry;
mod handle;
mod hosts;
mod issuer;
mod issuers;
mod job;
mod live;
mod maintain;
mod renewal;
mod request;
mod standing;
mod wanted;

pub use clock::Clock;
pub use handle::{Handle, Order, Refusal};
pub use standing::Standing;

use issuers::issuers;
pub(super) use live::Live;
pub(super) use maintain::start;
pub(super) use wanted::is_managed;
