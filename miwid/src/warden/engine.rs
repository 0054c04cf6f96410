//! One engine as a process: the program it is started from, its link, and what is on its way to it.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::link::{self, Identity, Packet, ToEngine, ToWarden};

/// What belongs to whoever the service manager started, which is the warden.
const PRIVATE: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// A program that stays what it is: the open file, whatever its path leads to later.
pub(super) struct Program(OwnedFd);

impl Program {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Whatever it is, opening it does not wait.
        let flags = nix::libc::O_NONBLOCK;
        Ok(Self(File::options().read(true).custom_flags(flags).open(path)?.into()))
    }

    /// Only root can have written it: an engine that is not root may name no other to be run as root.
    pub(super) fn is_roots(&self) -> bool {
        rustix::fs::fstat(&self.0).is_ok_and(|it| {
            let is_file = rustix::fs::FileType::from_raw_mode(it.st_mode).is_file();
            is_file && it.st_uid == 0 && it.st_mode & 0o022 == 0
        })
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
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
    /// What it was started from, if launches come from it; of one that another program started it is not known.
    pub(super) program: Option<Program>,
}

impl Engine {
    pub(super) fn start(program: &Program, arguments: &[OsString], identity: Option<&Identity>) -> io::Result<Self> {
        let (ours, theirs) = link::pair()?;
        let mut command = Command::new(program.path());
        command.arg0(link::ENGINE).args(arguments).stdin(Stdio::from(theirs));
        for name in PRIVATE {
            command.env_remove(name);
        }
        link::forget(&mut command);
        command.envs(identity.map(Identity::variable));
        let child = command.spawn()?;
        let program = identity.and_then(|_| program.try_clone().ok());
        // Reaped with all others: the child's handle is of no use.
        Ok(Self { pid: child.id(), link: ours, waiting: VecDeque::new(), went: false, program })
    }

    /// One that was started by this process as another program.
    pub(super) fn resumed(pid: u32, link: OwnedFd, went: bool) -> Self {
        Self { pid, link, waiting: VecDeque::new(), went, program: None }
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

/// Where the launch stub comes from.
pub(super) enum Stub<'a> {
    /// The program of this engine, whatever it is: both are the same account.
    OfEngine(u32),
    /// A program that the warden knows, as this account and no other, whatever the engine asks for.
    As(&'a Program, &'a Identity),
}

/// Starts the launch stub.
pub(super) fn launch(stub: Stub<'_>, stdio: [OwnedFd; 3]) -> io::Result<u32> {
    let [stdin, stdout, stderr] = stdio;
    let mut command = match stub {
        Stub::OfEngine(pid) => Command::new(format!("/proc/{pid}/exe")),
        Stub::As(program, _) => Command::new(program.path()),
    };
    command.arg0("miwid-launch");
    if let Stub::As(_, identity) = stub {
        command.arg(identity.text());
    }
    let child = command
        .env_clear()
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .spawn()?;
    Ok(child.id())
}
