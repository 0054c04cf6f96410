//! The gate before the HTTP/1.1 parser: bytes of a client pass only as part of a message whose head and framing are beyond
//! doubt. It decides where messages begin and end by itself, so what it lets through cannot be read in two ways.

mod chunks;
mod desk;
mod io;
mod line;
mod lines;
mod stream;
mod unchunk;

pub use desk::{After, Desk, Flaw, Verdict};
pub use io::Gated;
pub use line::{NAME_MAX, canonical_length, content_length, is_field_value, is_origin_form};
pub use lines::Rules;
pub use unchunk::{Unchunk, Unchunked, fields};
