//! QUIC packets find the worker that owns their connection: the kernel chooses among the sockets of a group by a byte of
//! the connection id, and every worker gives out ids whose first byte leads to itself.
//!
//! The one thing to get wrong: the order in which the sockets were bound is their number in the group.

use std::{io, net::UdpSocket};

use nix::{
    libc::{sock_filter, sock_fprog},
    sys::socket::{setsockopt, sockopt},
};
use quinn::{ConnectionId, ConnectionIdGenerator};

/// Long enough that nobody guesses one.
const ID_BYTES: usize = 12;

/// Connection ids of one worker of a group.
#[derive(Clone, Copy, Debug)]
pub struct SteeredIds {
    worker: u8,
    workers: u8,
}

impl SteeredIds {
    pub fn new(worker: usize, workers: usize) -> Self {
        let small = |it: usize| u8::try_from(it).unwrap_or(u8::MAX);
        Self { worker: small(worker), workers: small(workers).max(1) }
    }
}

impl ConnectionIdGenerator for SteeredIds {
    fn generate_cid(&mut self) -> ConnectionId {
        // The bits of a UUID that are not random lie between these two halves.
        let random = uuid::Uuid::new_v4().into_bytes();
        let mut id = [0; ID_BYTES];
        id[..6].copy_from_slice(&random[..6]);
        id[6..].copy_from_slice(&random[10..]);
        id[0] = steer(id[0], self.worker, self.workers);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// The nearest byte below `random` that leads to `worker`.
fn steer(random: u8, worker: u8, workers: u8) -> u8 {
    let whole = random - random % workers;
    // The last, incomplete round of bytes would overflow.
    whole.checked_add(worker).unwrap_or(worker)
}

/// Makes the kernel give each datagram to the socket that its connection id names. Long headers carry the id from byte 6
/// on, short ones from byte 1 (RFC 9000, 17); the id of a first packet is the client's choice and leads anywhere, but
/// always to the same.
pub(super) fn attach(group: &UdpSocket, workers: usize) -> io::Result<()> {
    // Classic BPF: load byte absolute, jump if bits are set, modulo, return the accumulator.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const MODULO: u16 = 0x94;
    const RETURN: u16 = 0x16;
    let statement = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let mut program = [
        statement(LOAD_BYTE, 0),
        sock_filter { code: JUMP_IF_SET, jt: 0, jf: 2, k: 0x80 },
        statement(LOAD_BYTE, 6),
        sock_filter { code: 0x05, jt: 0, jf: 0, k: 1 },
        statement(LOAD_BYTE, 1),
        statement(MODULO, u32::try_from(workers).unwrap_or(1).max(1)),
        statement(RETURN, 0),
    ];
    let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    setsockopt(group, sockopt::AttachReusePortCbpf, &program).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_leads_to_its_worker() {
        for workers in 1..=9 {
            for worker in 0..workers {
                for random in 0..=u8::MAX {
                    assert_eq!(steer(random, worker, workers) % workers, worker, "{random} {worker}/{workers}");
                }
            }
        }
    }

    #[test]
    fn the_kernel_follows_the_ids() {
        let group = super::super::bind_udp_group("127.0.0.1:0".parse().expect("an address"), 1).expect("a port");
        let address = group[0].local_addr().expect("bound");
        drop(group);
        let group = super::super::bind_udp_group(address, 3).expect("the port was free");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        for (worker, socket) in group.iter().enumerate() {
            let mut ids = SteeredIds::new(worker, group.len());
            let id = ids.generate_cid();
            let packet = [&[0x40][..], &id[..], &[worker as u8; 8]].concat();
            client.send_to(&packet, address).expect("sent");
            let mut buffer = [0; 64];
            socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a timeout");
            socket.set_nonblocking(false).expect("blocking");
            let (length, _) = socket.recv_from(&mut buffer).expect("the packet comes to its worker");
            assert_eq!(&buffer[..length], packet);
        }
    }
}
