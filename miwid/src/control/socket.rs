//! Where the control socket lives and who may open it. A file in the way is only replaced after the kernel said that
//! nobody listens on it; a daemon that answers wins.

use std::{
    fmt, fs, io,
    os::fd::OwnedFd,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{Gid, Group, chown},
};
use socket2::{Domain, SockAddr, Type};

use crate::link::{ENGINE, began_as_root};

const FILE_NAME: &str = "control.sock";
const DEFAULT_GROUP: &str = "miwid";
const BACKLOG: i32 = 128;

/// What the choice of a path depends on.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// `--socket`, else `control.socket`.
    pub configured: Option<PathBuf>,
    /// `control.group`.
    pub group: Option<String>,
    pub uid: u32,
    /// In the system's places: as root, or started by root as somebody else.
    pub system: bool,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
}

impl Place {
    /// As this process finds it.
    pub fn of_process(configured: Option<PathBuf>, group: Option<String>) -> Self {
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        Self { configured, group, uid: nix::unistd::geteuid().as_raw(), system: began_as_root(), runtime_dir }
    }
}

/// The path that `place` leads to.
pub fn choose(place: &Place) -> PathBuf {
    if let Some(path) = &place.configured {
        return path.clone();
    }
    if place.system {
        return Path::new("/run/miwid").join(FILE_NAME);
    }
    match &place.runtime_dir {
        Some(dir) => dir.join("miwid").join(FILE_NAME),
        None => PathBuf::from(format!("/tmp/miwid-{}", place.uid)).join(FILE_NAME),
    }
}

/// Why there is no socket.
#[derive(Debug)]
pub enum Error {
    /// Another daemon answers there.
    Taken {
        path: PathBuf,
        pid: Option<i32>,
    },
    /// Something that is not a socket stands there.
    InTheWay(PathBuf),
    /// The directory is not a real directory of ours.
    Directory(PathBuf),
    NoSuchGroup(String),
    Io {
        path: PathBuf,
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { path, pid: Some(pid) } => {
                write!(f, "another miwid (pid {pid}) runs on {}", path.display())
            }
            Self::Taken { path, pid: None } => write!(f, "another miwid runs on {}", path.display()),
            Self::InTheWay(path) => write!(f, "{} exists and is not a socket", path.display()),
            Self::Directory(path) => {
                write!(f, "{} is not a directory that belongs to this user alone", path.display())
            }
            Self::NoSuchGroup(name) => write!(f, "there is no group `{name}` for the control socket"),
            Self::Io { path, .. } => write!(f, "the control socket {} could not be made", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The bound socket. Dropping it removes the file, unless another daemon has put its own there.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Socket {
    /// Binds the socket that `place` leads to.
    pub fn bind(place: &Place) -> Result<Self, Error> {
        let path = choose(place);
        let group = group(place.group.as_deref())?;
        prepare_directory(place, &path)?;
        clear_stale(&path)?;
        listen(&path, group).map_err(|source| Error::Io { path, source })
    }

    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The socket of an engine before this one, which goes on without a gap.
    pub fn adopt(place: &Place, listener: OwnedFd) -> Result<Self, Error> {
        let path = choose(place);
        let found = fs::symlink_metadata(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let file = SocketFile { path, identity: (found.dev(), found.ino()) };
        Ok(Self { listener: UnixListener::from(listener), file })
    }

    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone().map(OwnedFd::from)
    }

    /// For the runtime that serves; the file is there until the second part is dropped.
    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl SocketFile {
    /// It is another's by now.
    pub(super) fn leave(mut self) {
        self.identity = (0, 0);
    }
}

fn group(wanted: Option<&str>) -> Result<Option<Gid>, Error> {
    let name = wanted.unwrap_or(DEFAULT_GROUP);
    match (Group::from_name(name), wanted) {
        (Ok(Some(group)), _) => Ok(Some(group.gid)),
        (_, Some(name)) => Err(Error::NoSuchGroup(name.to_owned())),
        _ => Ok(None),
    }
}

/// A configured directory is the operator's business. One of ours is made private, and one that others could have
/// planted in /tmp is refused.
fn prepare_directory(place: &Place, path: &Path) -> Result<(), Error> {
    let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) else {
        return Ok(());
    };
    let failed = |source| Error::Io { path: path.to_owned(), source };
    // The system's is passed by the group on its way to the socket, and by accounts of apps on the way to theirs.
    let mode = if place.system { 0o711 } else { 0o700 };
    match fs::DirBuilder::new().recursive(place.configured.is_some()).mode(mode).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    if place.configured.is_some() {
        return Ok(());
    }
    let found = fs::symlink_metadata(dir).map_err(failed)?;
    if !is_private(&found, place.uid) {
        return Err(Error::Directory(dir.to_owned()));
    }
    Ok(())
}

fn is_private(found: &fs::Metadata, uid: u32) -> bool {
    found.is_dir() && found.uid() == uid && found.mode() & 0o022 == 0
}

fn clear_stale(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(Error::InTheWay(path.to_owned())),
        Ok(_) => {}
    }
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A daemon whose backlog is full would block a blocking connect for ever.
    probe.set_nonblocking(true).map_err(failed)?;
    let address = SockAddr::unix(path).map_err(failed)?;
    match probe.connect(&address) {
        Ok(()) => {
            let pid = getsockopt(&probe, PeerCredentials).ok().and_then(|peer| main_process(peer.pid()));
            Err(Error::Taken { path: path.to_owned(), pid })
        }
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(failed),
            Some(Errno::EAGAIN) => Err(Error::Taken { path: path.to_owned(), pid: None }),
            Some(Errno::ENOENT) => Ok(()),
            _ => Err(failed(error)),
        },
    }
}

/// The one that operators know: of an engine its warden. Who began to listen may be gone, and the socket in other hands.
fn main_process(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    if name != ENGINE {
        return Some(pid);
    }
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The permissions are set between bind and listen: before listen nobody can connect, so there is no moment in which the
/// socket is open to more than it should be.
fn listen(path: &Path, group: Option<Gid>) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let found = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: (found.dev(), found.ino()) };
    if group.is_some() {
        // Without the right to give it away (not a member) the socket stays with the user's own group.
        let _ = chown(path, None, group);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(Socket { listener: UnixListener::from(OwnedFd::from(socket)), file })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn place(path: &Path) -> Place {
        Place { configured: Some(path.to_owned()), uid: nix::unistd::geteuid().as_raw(), ..Place::default() }
    }

    #[test]
    fn the_path_follows_configuration_then_user_then_runtime_directory() {
        let user = Place { uid: 1000, runtime_dir: Some("/run/user/1000".into()), ..Place::default() };
        let cases = [
            (Place { configured: Some("/x/y.sock".into()), ..user.clone() }, "/x/y.sock"),
            (Place { uid: 0, system: true, ..user.clone() }, "/run/miwid/control.sock"),
            (user.clone(), "/run/user/1000/miwid/control.sock"),
            (Place { runtime_dir: None, ..user }, "/tmp/miwid-1000/control.sock"),
        ];
        for (place, expected) in cases {
            assert_eq!(choose(&place), Path::new(expected), "{place:?}");
        }
    }

    #[test]
    fn the_socket_is_open_to_user_and_group_only_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let socket = Socket::bind(&place(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dropped listener leaves its file");
        let _socket = Socket::bind(&place(&path)).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_live_daemon_is_named_by_its_pid_and_keeps_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _first = Socket::bind(&place(&path)).unwrap();
        let refused = Socket::bind(&place(&path)).unwrap_err();
        let own_pid = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(refused, Error::Taken { pid: Some(pid), .. } if pid == own_pid), "{refused:?}");
        assert!(refused.to_string().contains(&format!("pid {own_pid}")));
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&place(&path)), Err(Error::InTheWay(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_socket_that_another_daemon_put_there_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let first = Socket::bind(&place(&path)).unwrap();
        fs::rename(&path, dir.path().join("moved.sock")).unwrap();
        let _second = Socket::bind(&place(&path)).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn a_linked_directory_is_not_private() {
        let dir = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::DirBuilder::new().mode(0o700).create(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(is_private(&fs::symlink_metadata(&real).unwrap(), uid));
        assert!(!is_private(&fs::symlink_metadata(&link).unwrap(), uid));
        assert!(!is_private(&fs::symlink_metadata(&real).unwrap(), uid + 1));
    }
}
