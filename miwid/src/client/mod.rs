//! Outgoing HTTPS for our own needs: interfaces of certificate authorities and of Cloudflare. Not for what clients ask of
//! us, which is `proxy`'s and `upstream`'s.

mod https;

pub use https::{Ask, Client, Error, Reply};
