//! What a site's policies make of a request and of its answer. Each decides purely; doing it is a thin second step.

mod access;
mod cells;
mod compress;
mod compression;
mod cors;
mod csrf;
mod guard;
mod nets;
mod pace;

pub use access::Access;
pub use cells::{Charged, Clients};
pub use compress::compress;
pub use compression::{Asked, Verdict, decide};
pub use cors::Cors;
pub use csrf::Csrf;
pub use guard::{Asks, Guard, Judged, Refusal};
pub use nets::Nets;
pub use pace::{Pace, TooEarly};
