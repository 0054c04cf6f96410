//! Certificates by themselves: the double of Cloudflare's API, what the daemon does with it, and what operators see.

mod acme;
mod answers;
mod authority;
mod commands;
mod conformance;
mod double;
mod issuing;
mod patience;
mod plain;
mod store;
mod token;
mod world;
