//! Opening what was located, without a race: the kernel resolves the path below a directory that we hold open.
//!
//! `openat2` with `RESOLVE_BENEATH` is the fast way. It refuses every absolute link, even one that stays below the root,
//! and some kernels and sandboxes refuse the call altogether; then the path is opened without reading rights, judged by
//! where the descriptor really is, and only then opened for reading. Asking `realpath` first would be a race.

use std::{
    ffi::OsStr,
    fs::File,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use config::Symlinks;
use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2, readlink, stat},
    io::Errno,
};

/// `NONBLOCK` so that a FIFO without a writer cannot hold the worker; regular files do not care.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// How long a root may have been replaced (a deploy that moves a link) before we look whether it was.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) enum Found {
    File(Opened),
    Directory(OwnedFd),
}

pub(super) struct Opened {
    pub(super) file: Arc<File>,
    pub(super) stat: Stat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// Nothing there, nothing that we serve, or a way there that `symlinks` forbids.
    NotFound,
    Denied,
    /// Our trouble: descriptors, memory, the disk.
    Trouble(Errno),
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP | Errno::XDEV | Errno::NXIO => {
                Self::NotFound
            }
            Errno::NODEV | Errno::INVAL | Errno::ILSEQ => Self::NotFound,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            other => Self::Trouble(other),
        }
    }
}

/// The directory behind a root. Shared by workers; the descriptor is replaced when the root is.
pub(super) struct Tree {
    root: PathBuf,
    symlinks: Symlinks,
    held: ArcSwapOption<Held>,
    since: Instant,
    looked_millis: AtomicU64,
    look_again: Duration,
}

struct Held {
    directory: OwnedFd,
    identity: (u64, u64),
}

// === impl Tree ===

impl Tree {
    pub(super) fn new(root: &Path, symlinks: Symlinks) -> Self {
        Self {
            root: root.to_owned(),
            symlinks,
            held: ArcSwapOption::empty(),
            since: Instant::now(),
            looked_millis: AtomicU64::new(0),
            look_again: LOOK_AGAIN,
        }
    }

    /// For tests: sees a replaced root at once.
    #[cfg(test)]
    pub(super) fn always_looking(mut self) -> Self {
        self.look_again = Duration::ZERO;
        self
    }

    /// `relative` as `locate` made it.
    pub(super) fn find(&self, relative: &[u8]) -> Result<Found, OpenError> {
        let held = self.directory()?;
        let found = self.find_in(&held, relative);
        if !matches!(found, Err(OpenError::NotFound)) {
            return found;
        }
        // A root that was removed and made again answers "nothing there" for ever, so look now.
        match self.replaced(&held)? {
            Some(held) => self.find_in(&held, relative),
            None => found,
        }
    }

    fn find_in(&self, held: &Held, relative: &[u8]) -> Result<Found, OpenError> {
        let path = if relative.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(relative)) };
        let descriptor = match self.symlinks {
            Symlinks::Follow => openat(&held.directory, path, READ, Mode::empty())?,
            Symlinks::Inside => beneath(held, path, ResolveFlags::empty()).or_else(|errno| match errno {
                Errno::XDEV | Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::INVAL => {
                    judged(held, path, self.symlinks)
                }
                other => Err(other),
            })?,
            Symlinks::Never => beneath(held, path, ResolveFlags::NO_SYMLINKS).or_else(|errno| match errno {
                Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::INVAL => judged(held, path, self.symlinks),
                other => Err(other),
            })?,
        };
        sort(descriptor)
    }

    fn directory(&self) -> Result<Arc<Held>, OpenError> {
        let Some(held) = self.held.load_full() else {
            return self.hold();
        };
        let now = self.since.elapsed();
        let looked = Duration::from_millis(self.looked_millis.load(Ordering::Relaxed));
        if now.saturating_sub(looked) < self.look_again {
            return Ok(held);
        }
        self.looked_millis.store(now.as_millis() as u64, Ordering::Relaxed);
        Ok(self.replaced(&held)?.unwrap_or(held))
    }

    /// The root's new directory if it is no longer the one we hold.
    fn replaced(&self, held: &Held) -> Result<Option<Arc<Held>>, OpenError> {
        let there = stat(&self.root)?;
        if identity(&there) == held.identity { Ok(None) } else { self.hold().map(Some) }
    }

    fn hold(&self) -> Result<Arc<Held>, OpenError> {
        let directory = open(&self.root, DIRECTORY, Mode::empty())?;
        let identity = identity(&fstat(&directory)?);
        let held = Arc::new(Held { directory, identity });
        self.held.store(Some(held.clone()));
        Ok(held)
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn beneath(held: &Held, path: &Path, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | more;
    openat2(&held.directory, path, READ, Mode::empty(), resolve)
}

/// Opens a handle that can neither read nor wake a device, asks the kernel where it is, and reads only what may be read.
fn judged(held: &Held, path: &Path, symlinks: Symlinks) -> Result<OwnedFd, Errno> {
    let handle = openat(&held.directory, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let root = place(&held.directory)?;
    let there = place(&handle)?;
    let allowed = match symlinks {
        Symlinks::Follow => true,
        Symlinks::Inside => there.starts_with(&root),
        // The names that we asked for are the names that we got: no link was on the way.
        Symlinks::Never => there == root.join(path) || (path == Path::new(".") && there == root),
    };
    if !allowed {
        return Err(Errno::XDEV);
    }
    if !matches!(file_type(&fstat(&handle)?), FileType::RegularFile | FileType::Directory) {
        return Err(Errno::NXIO);
    }
    open(proc_path(&handle), READ, Mode::empty())
}

fn place(descriptor: &OwnedFd) -> Result<PathBuf, Errno> {
    let path = readlink(proc_path(descriptor), Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(path.as_bytes())))
}

fn proc_path(descriptor: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn sort(descriptor: OwnedFd) -> Result<Found, OpenError> {
    let stat = fstat(&descriptor)?;
    match file_type(&stat) {
        FileType::RegularFile => Ok(Found::File(Opened { file: Arc::new(File::from(descriptor)), stat })),
        FileType::Directory => Ok(Found::Directory(descriptor)),
        _ => Err(OpenError::NotFound),
    }
}
