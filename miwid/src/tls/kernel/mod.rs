//! TLS that the kernel speaks (kTLS): once the handshake is over it gets the keys, encrypts what is written to the socket and
//! decrypts what comes, so a file goes from its pages to the client without passing through memory of ours.
//!
//! `support` finds out what there is, `message` is pure, `stream` moves bytes. Only TLS 1.3: the nonces of TLS 1.2 that have
//! been used already cannot be told to the kernel, and one that is used twice gives the key away.

mod keys;
mod message;
mod stream;
mod support;

pub(super) use stream::{KernelStream, prepare};
pub use support::Support;
pub(super) use support::probe;
