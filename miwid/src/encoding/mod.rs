//! Content codings: which one a client wants, which answers are worth it, and the encoders themselves. Nothing here knows
//! of files or upstreams: `files` and `policy` both ask.

mod accept;
mod budget;
mod coding;
mod dress;
mod encoded;
mod encoder;
mod inline;
mod rules;

pub use accept::Accepted;
pub use budget::{Budget, Permit};
pub use coding::Coding;
pub use dress::{coded, forbids_transformation, varies, weaken};
pub use encoded::{Encoded, Flush};
pub use encoder::{Encoder, Purpose};
pub use inline::{INLINE_BYTES, encode};
pub use rules::Rules;
