//! The service manager, which is told without waiting for it: what it does not take now, it gets at the next look, in order.

use std::{
    collections::VecDeque,
    env,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix};

/// A manager that takes nothing for so long has other worries than what came first.
const WAITING_MAX: usize = 64;
/// How soon it is tried again.
const AGAIN: Duration = Duration::from_millis(20);

#[derive(Default)]
pub(super) struct Manager {
    /// `None`: nobody wants to hear.
    to: Option<(UnixDatagram, SocketAddrUnix)>,
    waiting: VecDeque<Notice>,
}

struct Notice {
    text: String,
    descriptor: Option<OwnedFd>,
    /// It must arrive, however late.
    lasting: bool,
}

impl Manager {
    /// As `NOTIFY_SOCKET` says; a name that begins with `@` is an abstract one.
    pub(super) fn of_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name),
            None => SocketAddrUnix::new(name.as_os_str()),
        };
        let socket = UnixDatagram::unbound().and_then(|it| it.set_nonblocking(true).map(|()| it));
        Self { to: socket.ok().zip(address.ok()), waiting: VecDeque::new() }
    }

    pub(super) fn listens(&self) -> bool {
        self.to.is_some()
    }

    pub(super) fn tell(&mut self, text: String) {
        let is_status = |it: &str| it.starts_with("STATUS=");
        // Of signs of life one is as good as many, and a status is good until the next.
        let is_old = |it: &Notice| !it.lasting && (it.text == text || is_status(&it.text) && is_status(&text));
        self.waiting.retain(|it| !is_old(it));
        if self.waiting.iter().filter(|it| !it.lasting).count() >= WAITING_MAX
            && let Some(oldest) = self.waiting.iter().position(|it| !it.lasting)
        {
            self.waiting.remove(oldest);
        }
        self.add(Notice { text, descriptor: None, lasting: false });
    }

    /// Into its store of descriptors: what comes on one that nobody reads is no reason to give it up.
    pub(super) fn store(&mut self, name: &str, descriptor: OwnedFd) {
        let text = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        self.add(Notice { text, descriptor: Some(descriptor), lasting: true });
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.add(Notice { text: format!("FDSTOREREMOVE=1\nFDNAME={name}"), descriptor: None, lasting: true });
    }

    /// Something that it must get has not arrived yet.
    pub(super) fn is_behind(&self) -> bool {
        self.waiting.iter().any(|it| it.lasting)
    }

    /// When the next look must be, because something waits.
    pub(super) fn wakes_in(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(AGAIN)
    }

    fn add(&mut self, notice: Notice) {
        if self.listens() {
            self.waiting.push_back(notice);
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        let Some((socket, address)) = &self.to else { return };
        while let Some(Notice { text, descriptor, .. }) = self.waiting.front() {
            let rights: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !rights.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&rights));
            }
            let text = [IoSlice::new(text.as_bytes())];
            match rustix::net::sendmsg_addr(socket, address, &text, &mut ancillary, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::AGAIN) => return,
                // A manager that is gone hears nothing, now or later.
                Ok(_) | Err(_) => drop(self.waiting.pop_front()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_is_slow_gets_what_still_counts_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("bound");
        let own = UnixDatagram::unbound().expect("a socket");
        own.set_nonblocking(true).expect("set");
        let to = Some((own, SocketAddrUnix::new(&path).expect("an address")));
        let mut manager = Manager { to, waiting: VecDeque::new() };
        // As much as the kernel keeps.
        let mut kept = 0;
        while manager.waiting.is_empty() {
            manager.tell(format!("X={kept}"));
            kept += 1;
        }
        manager.forget("a");
        for text in ["STATUS=1", "WATCHDOG=1", "STATUS=2", "STOPPING=1\nSTATUS=end", "WATCHDOG=1", "STATUS=3"] {
            manager.tell(text.to_owned());
        }
        assert!(manager.is_behind());
        let mut heard = Vec::new();
        let mut text = [0; 100];
        socket.set_nonblocking(true).expect("set");
        while let Ok(count) = socket.recv(&mut text) {
            heard.push(String::from_utf8_lossy(&text[..count]).into_owned());
            manager.flush();
        }
        let last = ["FDSTOREREMOVE=1\nFDNAME=a", "STOPPING=1\nSTATUS=end", "WATCHDOG=1", "STATUS=3"];
        assert_eq!(heard[kept..], last);
        assert!(!manager.is_behind());
    }
}
