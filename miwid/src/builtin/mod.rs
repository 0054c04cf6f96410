//! Pages of miwid itself: `/health`, `/ready`, `/metrics` (an axum router, on the admin listener and for local callers),
//! and the welcome page of the built-in default.

mod pages;
mod welcome;

pub use pages::{Pages, serve};
pub use welcome::welcome;
