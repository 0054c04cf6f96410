//! Packets with descriptors, and pieces of memory for what a packet is too small for.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::{Serialize, de::DeserializeOwned};

/// Longer texts go in pieces of memory.
const PACKET_BYTES: usize = 64 << 10;
/// The kernel takes 253; senders split what is more than this.
pub(super) const DESCRIPTORS: usize = 64;

/// A message and what came along.
#[derive(Debug)]
pub struct Packet<M> {
    pub message: M,
    pub descriptors: Vec<OwnedFd>,
}

/// Both ends close when another program is executed.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// One packet, without waiting: `WouldBlock` when the other side does not read.
pub fn send<M: Serialize>(socket: BorrowedFd<'_>, message: &M, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > PACKET_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message too long for a packet"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for a packet"));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next packet, without waiting; `None` when the other side is gone.
pub fn receive<M: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<Packet<M>>> {
    let mut text = vec![0; PACKET_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut into = [IoSliceMut::new(&mut text)];
        match rustix::net::recvmsg(socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(got) => break got.bytes,
        }
    };
    if got == 0 {
        return Ok(None);
    }
    let rights = ancillary.drain().filter_map(|it| match it {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    let descriptors = rights.flatten().collect();
    Ok(Some(Packet { message: serde_json::from_slice(&text[..got])?, descriptors }))
}

/// `text` as something that a packet can carry.
pub fn memory(text: &[u8]) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("miwid-state", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(memory);
    file.write_all(text)?;
    Ok(file.into())
}

/// All of it, whoever else has read it.
pub fn read_memory(memory: OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(memory);
    let mut text = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or_default()];
    file.read_exact_at(&mut text, 0)?;
    Ok(text)
}

/// Our own fd 0, as a descriptor with an owner; what was there is `/dev/null` from now on.
pub fn begin() -> io::Result<OwnedFd> {
    let link = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::ToWarden;

    #[test]
    fn a_message_brings_its_descriptors_and_the_end_is_seen() {
        let (here, there) = pair().expect("a pair");
        let memory = memory(b"all that is known").expect("memory");
        send(here.as_fd(), &ToWarden::State, &[memory.as_fd()]).expect("sent");
        let got = receive::<ToWarden>(there.as_fd()).expect("received").expect("a packet");
        assert_eq!(got.message, ToWarden::State);
        let sent = got.descriptors.into_iter().next().expect("a descriptor");
        assert_eq!(read_memory(sent).expect("read"), b"all that is known");
        let nothing = receive::<ToWarden>(there.as_fd()).expect_err("nothing is there");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(here);
        assert!(receive::<ToWarden>(there.as_fd()).expect("the end").is_none());
    }

    #[test]
    fn what_is_too_long_is_refused_and_not_cut() {
        let (here, _there) = pair().expect("a pair");
        let long = ToWarden::Notify { text: "x".repeat(PACKET_BYTES) };
        assert_eq!(send(here.as_fd(), &long, &[]).expect_err("too long").kind(), io::ErrorKind::InvalidInput);
    }
}
