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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// What `judged` (the way without `openat2`) and `find` say must be the same.
    fn check(symlinks: Symlinks, dir: &Path, relative: &str, expected: Result<&str, OpenError>) {
        let tree = Tree::new(&dir.join("root"), symlinks);
        let fast = tree.find(relative.as_bytes()).map(name);
        assert_eq!(fast, expected.map(str::to_owned), "find {symlinks:?} {relative}");
        let held = tree.directory().unwrap_or_else(|error| panic!("the root is there: {error:?}"));
        let slow = judged(&held, Path::new(relative), symlinks).map_err(OpenError::from).and_then(sort).map(name);
        assert_eq!(slow, expected.map(str::to_owned), "judged {symlinks:?} {relative}");
    }

    fn name(found: Found) -> String {
        match found {
            Found::File(opened) => std::io::read_to_string(&*opened.file).unwrap(),
            Found::Directory(_) => "directory".to_owned(),
        }
    }

    #[test]
    fn links_are_followed_as_configured() {
        let dir = tempfile::tempdir().unwrap();
        // The sibling's name begins with the root's: a comparison of text would take it for inside.
        fs::create_dir_all(dir.path().join("root/sub")).unwrap();
        fs::create_dir_all(dir.path().join("root-evil")).unwrap();
        fs::write(dir.path().join("root/sub/in"), "in").unwrap();
        fs::write(dir.path().join("root-evil/out"), "out").unwrap();
        let root = dir.path().join("root");
        symlink("sub/in", root.join("relative")).unwrap();
        symlink(root.join("sub/in"), root.join("absolute")).unwrap();
        symlink("sub", root.join("directory")).unwrap();
        symlink("../root/sub/in", root.join("around")).unwrap();
        symlink("../root-evil/out", root.join("escape")).unwrap();
        symlink(dir.path().join("root-evil"), root.join("outside")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        let gone = Err(OpenError::NotFound);
        let table = [
            ("sub/in", Ok("in"), Ok("in"), Ok("in")),
            ("sub", Ok("directory"), Ok("directory"), Ok("directory")),
            ("relative", Ok("in"), Ok("in"), gone),
            ("absolute", Ok("in"), Ok("in"), gone),
            ("directory/in", Ok("in"), Ok("in"), gone),
            ("around", Ok("in"), Ok("in"), gone),
            ("escape", Ok("out"), gone, gone),
            ("outside/out", Ok("out"), gone, gone),
            ("outside", Ok("directory"), gone, gone),
            ("magic/etc/passwd", Ok(""), gone, gone),
            ("loop", gone, gone, gone),
            ("dangling", gone, gone, gone),
            ("sub/in/x", gone, gone, gone),
            ("missing", gone, gone, gone),
        ];
        for (relative, follow, inside, never) in table {
            // What `follow` does with the machine's own files is not for a table.
            if relative != "magic/etc/passwd" {
                check(Symlinks::Follow, dir.path(), relative, follow);
            }
            check(Symlinks::Inside, dir.path(), relative, inside);
            check(Symlinks::Never, dir.path(), relative, never);
        }
    }

    #[test]
    fn only_files_are_served_and_a_fifo_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        symlink("/dev/zero", root.join("zero")).unwrap();
        for relative in ["fifo", "socket", "zero"] {
            check(Symlinks::Follow, dir.path(), relative, Err(OpenError::NotFound));
            check(Symlinks::Inside, dir.path(), relative, Err(OpenError::NotFound));
        }
    }

    #[test]
    fn a_root_may_appear_be_replaced_and_vanish() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("current");
        let tree = Tree::new(&root, Symlinks::Inside).always_looking();
        let found = |tree: &Tree| tree.find(b"f").map(name);
        assert_eq!(found(&tree), Err(OpenError::NotFound));
        for release in ["one", "two"] {
            fs::create_dir(dir.path().join(release)).unwrap();
            fs::write(dir.path().join(release).join("f"), release).unwrap();
        }
        symlink("one", &root).unwrap();
        assert_eq!(found(&tree), Ok("one".to_owned()));
        fs::remove_file(&root).unwrap();
        symlink("two", &root).unwrap();
        assert_eq!(found(&tree), Ok("two".to_owned()));
        fs::remove_file(&root).unwrap();
        assert_eq!(found(&tree), Err(OpenError::NotFound));
    }

    #[test]
    fn a_root_made_anew_is_seen_when_the_old_one_has_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut tree = Tree::new(&root, Symlinks::Inside);
        tree.look_again = Duration::MAX;
        assert!(matches!(tree.find(b""), Ok(Found::Directory(_))));
        fs::rename(&root, dir.path().join("old")).unwrap();
        fs::create_dir(&root).unwrap();
        fs::write(root.join("f"), "new").unwrap();
        assert_eq!(tree.find(b"f").map(name), Ok("new".to_owned()));
    }
}
