//! Behind Cloudflare: who is believed, who is served, and what the doctor finds. Peers at Cloudflare's addresses are made with
//! the PROXY protocol: a balancer on this machine says whose connection it is.

mod doctor;
mod edge;
mod limits;
mod only;
pub(crate) mod peer;
mod purge;
mod ranges;
