//! What a warden that executes another program takes along: a text and descriptors. They wait in a pair of sockets whose one end is
//! the next program's fd 0, so that nothing has to be found by its number. The first descriptor is the program to go back to.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use super::engine::Program;
use crate::link;

/// In one packet.
const DESCRIPTORS: usize = 64;
/// What is on its way counts as a buffer; the system grants what it likes.
const BUFFER_BYTES: usize = 4 << 20;

pub(super) struct Parcel {
    pub(super) text: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// It comes back: the other program could not go on with it.
    pub(super) returned: bool,
}

#[derive(Serialize, Deserialize)]
struct Label {
    descriptors: usize,
    returned: bool,
}

// === impl Parcel ===

impl Parcel {
    /// Becomes `program`. Returns only when that did not work, and then nothing has changed.
    pub(super) fn execute(&self, program: &Program, arguments: &[OsString]) -> io::Error {
        let parked = match self.park() {
            Ok(parked) => parked,
            Err(error) => return error,
        };
        let mut command = Command::new(program.path());
        let error = command.arg0(link::WARDEN).args(arguments).stdin(Stdio::from(parked)).exec();
        // It may have been replaced already; closed it must not be, or the next file would be it.
        let _ = link::begin();
        error
    }

    fn park(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = link::pair()?;
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, BUFFER_BYTES)?;
        let label = Label { descriptors: self.descriptors.len(), returned: self.returned };
        link::send(ours.as_fd(), &label, &[link::memory(&self.text)?.as_fd()])?;
        for some in self.descriptors.chunks(DESCRIPTORS) {
            let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            link::send(ours.as_fd(), &(), &some)?;
        }
        Ok(theirs)
    }

    pub(super) fn unpark(parked: &OwnedFd) -> io::Result<Self> {
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "something is missing");
        let mut packet = link::receive::<Label>(parked.as_fd())?.ok_or_else(missing)?;
        let text = link::read_memory(packet.descriptors.pop().ok_or_else(missing)?)?;
        let Label { descriptors: count, returned } = packet.message;
        let mut descriptors = Vec::with_capacity(count);
        while descriptors.len() < count {
            descriptors.append(&mut link::receive::<()>(parked.as_fd())?.ok_or_else(missing)?.descriptors);
        }
        Ok(Self { text, descriptors, returned })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_arrives_in_order_although_the_sender_is_gone() {
        let memories: Vec<OwnedFd> = (0..300_u32).map(|it| link::memory(&it.to_be_bytes()).expect("memory")).collect();
        let text = vec![b'x'; 1 << 20];
        let parcel = Parcel { text: text.clone(), descriptors: memories, returned: true };
        let parked = parcel.park().expect("parked");
        drop(parcel);
        let got = Parcel::unpark(&parked).expect("unparked");
        assert_eq!((got.text, got.returned, got.descriptors.len()), (text, true, 300));
        for (number, memory) in (0..300_u32).zip(got.descriptors) {
            assert_eq!(link::read_memory(memory).expect("read"), number.to_be_bytes());
        }
        assert!(Parcel::unpark(&parked).is_err(), "there is one");
    }
}
