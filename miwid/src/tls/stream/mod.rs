//! TLS over a client's stream, as a server speaks it, without the buffers that a library's stream keeps for as long as it
//! lives: thousands of connections wait at a time, and one that waits holds nothing but its keys.
//!
//! `session` decides and knows no io; `io` moves bytes and decides nothing.

mod held;
mod hello;
mod io;
mod scratch;
mod session;
#[cfg(test)]
mod tests;

pub(super) use hello::hello;
pub use io::TlsStream;
