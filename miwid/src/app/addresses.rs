//! An address of its own for every attempt: reusing one lets a dying instance unlink or hold what its successor needs.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{preflight, spec::AddressPlan};
use crate::upstream::Address;

/// Below Linux's range of ephemeral ports, so that no outgoing connection takes an instance's port.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// A port rests so long after use.
const QUARANTINE: Duration = Duration::from_secs(2);
/// `sockaddr_un` holds no more.
const PATH_BYTES_MAX: usize = 107;

/// Hands addresses out and takes them back. The supervisor owns the only one.
#[derive(Debug)]
pub(super) struct Addresses {
    run_dir: PathBuf,
    random: fastrand::Rng,
    taken: HashSet<u16>,
    resting: HashMap<u16, Instant>,
}

impl Addresses {
    pub(super) fn new(run_dir: PathBuf, random: fastrand::Rng) -> Self {
        Self { run_dir, random, taken: HashSet::new(), resting: HashMap::new() }
    }

    /// Picks the address of one attempt.
    pub(super) fn pick(&mut self, plan: &AddressPlan, now: Instant) -> io::Result<Address> {
        match plan {
            AddressPlan::Fixed(address) => Ok(address.clone()),
            AddressPlan::Tcp => self.port(now).map(|port| Address::Tcp(local(port))),
            AddressPlan::Unix => self.socket().map(Address::Unix),
        }
    }

    /// An attempt that another engine began has it.
    pub(super) fn adopt(&mut self, plan: &AddressPlan, address: &Address) {
        if let (AddressPlan::Tcp, Address::Tcp(address)) = (plan, address) {
            self.taken.insert(address.port());
        }
    }

    /// The attempt is over.
    pub(super) fn free(&mut self, plan: &AddressPlan, address: &Address, now: Instant) {
        match (plan, address) {
            (AddressPlan::Tcp, Address::Tcp(address)) if self.taken.remove(&address.port()) => {
                self.resting.insert(address.port(), now + QUARANTINE);
            }
            (AddressPlan::Unix, Address::Unix(path)) => {
                if let Some(directory) = path.parent() {
                    // A directory made for this attempt alone; what is left in it is of no use to anybody.
                    let _ = std::fs::remove_dir_all(directory);
                }
            }
            _ => {}
        }
    }

    fn port(&mut self, now: Instant) -> io::Result<u16> {
        self.resting.retain(|_, until| *until > now);
        let ephemeral = ephemeral_ports();
        for _ in 0..1_000 {
            let port = self.random.u16(PORTS);
            let unfit = ephemeral.contains(&port) || self.taken.contains(&port) || self.resting.contains_key(&port);
            if !unfit && TcpListener::bind(local(port)).is_ok() {
                self.taken.insert(port);
                return Ok(port);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port between 20000 and 29999"))
    }

    fn socket(&mut self) -> io::Result<PathBuf> {
        fitting(&self.directory()?)
    }

    /// A fresh directory for sockets of one attempt, which is the caller's to remove.
    pub(super) fn directory(&mut self) -> io::Result<PathBuf> {
        let parent = self.run_dir.join("i");
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&parent)?;
        for _ in 0..100 {
            let directory = parent.join(format!("{:08x}", self.random.u32(..)));
            match std::fs::DirBuilder::new().mode(0o750).create(&directory) {
                Ok(()) => return Ok(directory),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free socket directory"))
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn fitting(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join("http.sock");
    if path.as_os_str().len() > PATH_BYTES_MAX {
        let message = format!("socket path {} is longer than {PATH_BYTES_MAX} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(path)
}

fn ephemeral_ports() -> std::ops::RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = text.split_ascii_whitespace().filter_map(|end| end.parse().ok());
    ends.next().unwrap_or(32_768)..=ends.next().unwrap_or(60_999)
}

/// Gives the socket's directory to the app's user, if that can get there: only it may create there, and our group may connect.
pub(super) fn hand_over(address: &Address, user: &super::spec::User) -> io::Result<()> {
    let Address::Unix(path) = address else { return Ok(()) };
    let Some(directory) = path.parent() else { return Ok(()) };
    std::os::unix::fs::chown(directory, Some(user.uid), None)?;
    // Set-group-id: the socket inherits our group.
    std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o2750))?;
    preflight::directory(directory, Some(user))
        .map_err(|obstacle| io::Error::new(io::ErrorKind::PermissionDenied, obstacle.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(directory: &Path) -> Addresses {
        Addresses::new(directory.to_owned(), fastrand::Rng::with_seed(1))
    }

    #[test]
    fn two_living_instances_never_share_a_port_and_a_freed_one_rests() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut addresses = addresses(directory.path());
        let now = Instant::now();
        let mut seen = HashSet::new();
        for _ in 0..200 {
            let address = addresses.pick(&AddressPlan::Tcp, now).expect("a port");
            assert!(seen.insert(address.clone()), "{address} was handed out twice");
            addresses.free(&AddressPlan::Tcp, &address, now);
        }
        assert_eq!(addresses.resting.len(), 200);
        addresses.pick(&AddressPlan::Tcp, now + QUARANTINE).expect("a port");
        assert!(addresses.resting.is_empty());
    }

    #[test]
    fn every_attempt_gets_a_fresh_socket_path_and_freeing_removes_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut addresses = addresses(directory.path());
        let now = Instant::now();
        let first = addresses.pick(&AddressPlan::Unix, now).expect("a path");
        let second = addresses.pick(&AddressPlan::Unix, now).expect("a path");
        assert_ne!(first, second);
        addresses.free(&AddressPlan::Unix, &first, now);
        let Address::Unix(path) = first else { panic!("not a path") };
        assert!(!path.parent().expect("a parent").exists());
    }
}
