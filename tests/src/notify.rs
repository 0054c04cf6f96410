//! A stand-in for the service manager's end of the `NOTIFY_SOCKET`, with its store of descriptors.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::wait;

/// Receives what a daemon tells its service manager.
pub struct FakeNotify {
    path: PathBuf,
    socket: UnixDatagram,
    seen: Vec<String>,
    /// The newest first, as systemd has it.
    store: Vec<(String, OwnedFd)>,
}

impl FakeNotify {
    /// Binds `notify.sock` in `directory`.
    pub fn bind(directory: &Path) -> io::Result<Self> {
        let path = directory.join("notify.sock");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { path, socket, seen: Vec::new(), store: Vec::new() })
    }

    /// The value for `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every assignment received so far, in order: `READY=1`, `STATUS=...`, `WATCHDOG=1`.
    pub fn seen(&mut self) -> &[String] {
        let mut datagram = [0; 8192];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        loop {
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut datagram)];
            let got = rustix::net::recvmsg(&self.socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
            let Ok(count) = got.map(|it| it.bytes) else { return &self.seen };
            let rights = ancillary.drain().filter_map(|it| match it {
                RecvAncillaryMessage::ScmRights(rights) => Some(rights),
                _ => None,
            });
            let descriptors: Vec<OwnedFd> = rights.flatten().collect();
            let text = String::from_utf8_lossy(&datagram[..count]).into_owned();
            self.remember(&text, descriptors);
            self.seen.extend(text.lines().map(str::to_owned));
        }
    }

    /// `FDSTORE=1` and `FDSTOREREMOVE=1`, as systemd means them.
    fn remember(&mut self, text: &str, descriptors: Vec<OwnedFd>) {
        let has = |line: &str| text.lines().any(|it| it == line);
        let name = text.lines().find_map(|it| it.strip_prefix("FDNAME=")).unwrap_or("stored");
        if has("FDSTOREREMOVE=1") {
            self.store.retain(|(it, _)| it != name);
        }
        if has("FDSTORE=1") {
            assert!(has("FDPOLL=0"), "a listener that has work would be thrown out: {text}");
            assert!(name.is_ascii() && name.len() <= 255 && !name.contains([':', '\n']), "no name for systemd: {name}");
            for descriptor in descriptors.into_iter().rev() {
                self.store.insert(0, (name.to_owned(), descriptor));
            }
        }
    }

    /// What is in the store, sorted.
    pub fn stored(&mut self) -> Vec<String> {
        self.seen();
        let mut names: Vec<String> = self.store.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// What the next start is passed. The store keeps what it has.
    pub fn copies(&mut self) -> Vec<(String, OwnedFd)> {
        self.seen();
        self.store.iter().map(|(name, it)| (name.clone(), it.try_clone().expect("a copy"))).collect()
    }

    /// Waits for an assignment that begins with `prefix` and returns it.
    pub async fn expect(&mut self, prefix: &str, deadline: Duration) -> String {
        self.expect_times(prefix, 1, deadline).await
    }

    /// Waits until `times` assignments began with `prefix` and returns the last.
    pub async fn expect_times(&mut self, prefix: &str, times: usize, deadline: Duration) -> String {
        let what = format!("{times} x {prefix} on the notify socket");
        let cell = std::cell::RefCell::new(self);
        wait::for_some(deadline, &what, || {
            let mut notify = cell.borrow_mut();
            let found: Vec<String> = notify.seen().iter().filter(|it| it.starts_with(prefix)).cloned().collect();
            std::future::ready((found.len() >= times).then(|| found.last().cloned()).flatten())
        })
        .await
    }
}
