//! The generated API of the control plane. Messages serialize to the very JSON that miwictl prints, so a field that is
//! renamed in the proto file is renamed for every script too: add fields, never rename them.

#![allow(unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]

pub mod v1 {
    tonic::include_proto!("miwi.control.v1");
}

/// For the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/control.fds"));
