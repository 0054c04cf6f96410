//! The service manager's store of descriptors: the listening sockets outlive a warden that was killed, and connections wait in
//! the kernel for the next one. What is there comes back as `LISTEN_FDS`; what nobody wants any more is taken out.

use std::{
    collections::BTreeMap,
    env,
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    net::{SocketType, sockopt},
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
};

use super::{manager::Manager, voice};
use crate::link::Kept;

/// The first descriptor that a service manager passes.
const FIRST: i32 = 3;
/// More than any manager passes.
const PASSED_MAX: i32 = 8192;
/// An engine says what it opens bit by bit: what it drops and keeps again has not changed.
const SETTLE: Duration = Duration::from_millis(20);
/// What a manager says where nobody gave a name.
const NAMELESS: [&str; 4] = ["", "unknown", "stored", "connection"];

/// What the manager has, by name.
pub(super) type Names = BTreeMap<String, u64>;

pub(super) struct Store {
    names: Names,
    changed: Option<Instant>,
    /// At the end nothing is taken out: a restart finds it again.
    ended: bool,
}

/// A descriptor that was passed.
struct Passed {
    name: String,
    descriptor: OwnedFd,
}

// === impl Store ===

impl Store {
    /// With what the manager has passed, sorted as an engine wants it.
    pub(super) fn open(manager: &mut Manager) -> (Self, Kept) {
        let (mut sorted, mut names) = (BTreeMap::<String, BTreeMap<usize, Vec<OwnedFd>>>::new(), Names::new());
        for (at, Passed { name, descriptor }) in passed().into_iter().enumerate() {
            let ours = key_of(&name);
            let known = ours.is_some() || !NAMELESS.contains(&&*name);
            match listens_on(descriptor, ours.as_ref().is_some_and(|(key, _)| key.starts_with("admin:"))) {
                Some((key, descriptor)) => {
                    let place = ours.map_or(at, |(_, place)| place);
                    names.extend(known.then(|| identity(&descriptor).map(|it| (name, it))).flatten());
                    sorted.entry(key).or_default().entry(place).or_default().push(descriptor);
                }
                None if known => manager.forget(&name),
                None => {}
            }
        }
        let kept: Kept =
            sorted.into_iter().map(|(key, places)| (key, distinct(places.into_values().flatten().collect()))).collect();
        if !kept.is_empty() {
            let all: Vec<&str> = kept.keys().map(String::as_str).collect();
            voice::info(&format!("the service manager has passed {}", all.join(", ")));
        }
        // Names that are not ours leave the store with the first look.
        (Self { names, changed: Some(Instant::now()), ended: false }, kept)
    }

    /// That of a warden that has become another program.
    pub(super) fn resumed(names: Names) -> Self {
        Self { names, changed: Some(Instant::now()), ended: false }
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn changed(&mut self) {
        self.changed = Some(Instant::now());
    }

    /// From now on all stays as it is.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn wakes_in(&self) -> Option<Duration> {
        self.changed.map(|at| SETTLE.saturating_sub(at.elapsed()))
    }

    /// Tells the manager what is new and what is gone.
    pub(super) fn settle(&mut self, kept: &Kept, manager: &mut Manager) {
        if self.ended || !manager.listens() || self.changed.is_none_or(|at| at.elapsed() < SETTLE) {
            return;
        }
        self.changed = None;
        let wanted = wanted(kept);
        let identities: Names = wanted.iter().map(|(name, (identity, _))| (name.clone(), *identity)).collect();
        let (gone, new) = difference(&self.names, &identities);
        for name in gone {
            manager.forget(&name);
        }
        for name in new {
            let copy = wanted.get(&name).map(|(_, descriptor)| descriptor.try_clone());
            match copy {
                Some(Ok(copy)) => manager.store(&name, copy),
                // It is tried again with the next change.
                _ => continue,
            }
        }
        self.names = identities;
    }
}

/// Pure: the names that must leave, and those that must come (again).
fn difference(have: &Names, want: &Names) -> (Vec<String>, Vec<String>) {
    let differs = |a: &Names, b: &Names| {
        a.iter().filter(|(name, it)| b.get(*name) != Some(*it)).map(|(name, _)| name.clone()).collect()
    };
    (differs(have, want), differs(want, have))
}

/// Each socket once, in the order of its group.
fn wanted(kept: &Kept) -> BTreeMap<String, (u64, &OwnedFd)> {
    let mut wanted = BTreeMap::new();
    for (key, descriptors) in kept.iter().filter(|(key, _)| is_stored(key)) {
        let mut seen = Vec::new();
        for descriptor in descriptors {
            let Some(identity) = identity(descriptor).filter(|it| !seen.contains(it)) else { continue };
            wanted.insert(name_of(key, seen.len()), (identity, descriptor));
            seen.push(identity);
        }
    }
    wanted
}

/// The control socket is not: who looks whether another daemon answers there must see that none does.
fn is_stored(key: &str) -> bool {
    ["tcp:", "udp:", "admin:"].iter().any(|it| key.starts_with(it))
}

/// Names have no colon: `tcp:0.0.0.0:443`, the third of its group, is `tcp;0.0.0.0;443;2`.
fn name_of(key: &str, place: usize) -> String {
    format!("{};{place}", key.replace(':', ";"))
}

fn key_of(name: &str) -> Option<(String, usize)> {
    let (key, place) = name.rsplit_once(';')?;
    let key = key.replace(';', ":");
    Some((key, place.parse().ok()?)).filter(|(key, _)| is_stored(key))
}

/// Which socket it is, however many descriptors lead to it.
fn identity(descriptor: &OwnedFd) -> Option<u64> {
    rustix::fs::fstat(descriptor).ok().map(|it| it.st_ino)
}

fn distinct(descriptors: Vec<OwnedFd>) -> Vec<OwnedFd> {
    let mut seen = Vec::new();
    descriptors
        .into_iter()
        .filter(|it| {
            identity(it).is_some_and(|it| {
                !seen.contains(&it) && {
                    seen.push(it);
                    true
                }
            })
        })
        .collect()
}

/// What an engine would call it; `None` for what no engine can use.
fn listens_on(descriptor: OwnedFd, is_admin: bool) -> Option<(String, OwnedFd)> {
    rustix::io::ioctl_fionbio(&descriptor, true).ok()?;
    match sockopt::socket_type(&descriptor).ok()? {
        SocketType::STREAM if sockopt::socket_acceptconn(&descriptor).ok()? => {
            let listener = TcpListener::from(descriptor);
            let transport = if is_admin { "admin" } else { "tcp" };
            Some((format!("{transport}:{}", listener.local_addr().ok()?), listener.into()))
        }
        SocketType::DGRAM => {
            let socket = UdpSocket::from(descriptor);
            Some((format!("udp:{}", socket.local_addr().ok()?), socket.into()))
        }
        _ => None,
    }
}

/// `LISTEN_FDS`, if they are for this process. Their numbers are free afterwards, and no child inherits them.
fn passed() -> Vec<Passed> {
    let number = |name: &str| env::var(name).ok().and_then(|it| it.parse::<i32>().ok());
    if number("LISTEN_PID").is_none_or(|it| it != nix::unistd::getpid().as_raw()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or_default().clamp(0, PASSED_MAX);
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let own = pidfd_open(getpid(), PidfdFlags::empty());
    let mut passed = Vec::new();
    for fd in FIRST..FIRST.saturating_add(count) {
        let name = names.next().unwrap_or_default().to_owned();
        // A copy of one's own descriptor by its number: it has an owner, and is closed when a program is executed.
        let copy =
            own.as_ref().map_err(|it| *it).and_then(|own| pidfd_getfd(own.as_fd(), fd, PidfdGetfdFlags::empty()));
        match copy {
            Ok(descriptor) => passed.push(Passed { name, descriptor }),
            Err(error) => {
                voice::warn(&format!("descriptor {fd} ({name}) of the service manager is of no use: {error}"))
            }
        }
        let _ = nix::unistd::close(fd);
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[(&str, u64)]) -> Names {
        of.iter().map(|(name, identity)| ((*name).to_owned(), *identity)).collect()
    }

    #[test]
    fn a_name_has_no_colon_and_leads_back() {
        for key in ["tcp:0.0.0.0:443", "udp:[2001:db8::1]:443", "admin:127.0.0.1:9090"] {
            let name = name_of(key, 7);
            assert!(name.is_ascii() && !name.contains(':') && name.len() < 255, "{name}");
            assert_eq!(key_of(&name), Some((key.to_owned(), 7)));
        }
        for foreign in ["", "unknown", "http", "miwid.socket", "control;/run/x;0", "tcp;127.0.0.1;80"] {
            assert!(key_of(foreign).is_none_or(|(key, _)| key == "tcp:127.0.0.1"), "{foreign}");
        }
    }

    #[test]
    fn only_what_differs_is_told() {
        let have = names(&[("a", 1), ("b", 2), ("c", 3)]);
        let want = names(&[("a", 1), ("c", 4), ("d", 5)]);
        let (gone, new) = difference(&have, &want);
        assert_eq!((gone, new), (vec!["b".to_owned(), "c".to_owned()], vec!["c".to_owned(), "d".to_owned()]));
        assert_eq!(difference(&have, &have), (Vec::new(), Vec::new()));
    }

    #[test]
    fn each_socket_is_stored_once_and_the_control_socket_never() {
        let listener = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").expect("loopback has ports"));
        let (one, other) = (listener(), listener());
        let copy = one.try_clone().expect("a copy");
        let control = listener();
        let kept = Kept::from([("tcp:x".to_owned(), vec![one, copy, other]), ("control:/x".to_owned(), vec![control])]);
        assert_eq!(wanted(&kept).into_keys().collect::<Vec<_>>(), ["tcp;x;0", "tcp;x;1"]);
    }

    #[test]
    fn what_listens_is_known_by_its_address_and_nothing_else_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("bound");
        let (key, descriptor) = listens_on(listener.into(), false).expect("it listens");
        assert_eq!(key, format!("tcp:{address}"));
        assert_eq!(listens_on(descriptor, true).expect("it listens").0, format!("admin:{address}"));
        let socket = UdpSocket::bind("[::1]:0").expect("loopback has ports");
        let address = socket.local_addr().expect("bound");
        assert_eq!(listens_on(socket.into(), false).expect("it is bound").0, format!("udp:{address}"));
        let (unix, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(listens_on(unix.into(), false).is_none());
        assert!(listens_on(std::fs::File::open("/dev/null").expect("there is one").into(), false).is_none());
    }
}
