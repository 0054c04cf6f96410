//! Certificates by themselves: the double of Cloudflare's API, what the daemon does with it, and what operators see.

mod conformance;
mod double;
mod plain;
