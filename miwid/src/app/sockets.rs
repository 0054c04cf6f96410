//! Stand-in until the real one arrives.

use crate::upstream::Address;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub pid: u32,
    pub uid: u32,
    pub user: String,
    pub command: String,
}

pub fn listeners_of(pids: &[u32]) -> Vec<Address> {
    let _ = pids;
    Vec::new()
}

pub fn owner(address: &Address) -> Option<Owner> {
    let _ = address;
    None
}
