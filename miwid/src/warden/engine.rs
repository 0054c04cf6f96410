//! One engine as a process: the program it is started from, its link, and what is on its way to it.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::link::{self, Packet, ToEngine, ToWarden};

/// What belongs to whoever the service manager started, which is the warden.
const PRIVATE: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// A program that stays what it is: the open file, whatever its path leads to later.
pub(super) struct Program(OwnedFd);

impl Program {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?.into()))
    }

    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// The same file, by whatever name.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let identity = |it: &Self| rustix::fs::fstat(&it.0).ok().map(|it| (it.st_dev, it.st_ino));
        identity(self).is_some_and(|it| identity(other) == Some(it))
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }
}

impl From<OwnedFd> for Program {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<Program> for OwnedFd {
    fn from(program: Program) -> Self {
        program.0
    }
}

pub(super) struct Engine {
    pub(super) pid: u32,
    link: OwnedFd,
    /// What it has not read yet.
    waiting: VecDeque<(ToEngine, Vec<OwnedFd>)>,
    /// It was told to serve, and hears of processes that end.
    pub(super) went: bool,
}

impl Engine {
    pub(super) fn start(program: &Program, arguments: &[OsString]) -> io::Result<Self> {
        let (ours, theirs) = link::pair()?;
        let mut command = Command::new(program.path());
        command.arg0(link::ENGINE).args(arguments).stdin(Stdio::from(theirs));
        for name in PRIVATE {
            command.env_remove(name);
        }
        let child = command.spawn()?;
        // Reaped with all others: the child's handle is of no use.
        Ok(Self { pid: child.id(), link: ours, waiting: VecDeque::new(), went: false })
    }

    /// One that was started by this process as another program.
    pub(super) fn resumed(pid: u32, link: OwnedFd, went: bool) -> Self {
        Self { pid, link, waiting: VecDeque::new(), went }
    }

    /// In order, now or as soon as it reads again.
    pub(super) fn tell(&mut self, message: ToEngine, descriptors: Vec<OwnedFd>) {
        self.waiting.push_back((message, descriptors));
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        while let Some((message, owned)) = self.waiting.front() {
            let descriptors: Vec<_> = owned.iter().map(AsFd::as_fd).collect();
            match link::send(self.link.as_fd(), message, &descriptors) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // One that is gone is reaped soon; nothing of ours is longer than a packet.
                Ok(()) | Err(_) => drop(self.waiting.pop_front()),
            }
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// `None`: nothing now. A link that is broken says nothing any more.
    pub(super) fn hear(&self) -> Option<Packet<ToWarden>> {
        link::receive(self.link.as_fd()).ok().flatten()
    }

    pub(super) fn link(&self) -> &OwnedFd {
        &self.link
    }
}

/// Starts the launch stub from the program of the engine that asks.
pub(super) fn launch(engine: u32, stdio: [OwnedFd; 3]) -> io::Result<u32> {
    let [stdin, stdout, stderr] = stdio;
    let child = Command::new(format!("/proc/{engine}/exe"))
        .arg0("miwid-launch")
        .env_clear()
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .spawn()?;
    Ok(child.id())
}
