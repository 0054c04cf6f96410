//! Who listens where, read from /proc. Processes vanish while we look: whatever can't be read counts as absent.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use crate::upstream::Address;

/// The process that holds a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub pid: u32,
    pub uid: u32,
    pub user: String,
    pub command: String,
}

/// The addresses on which any of `pids` listens.
pub fn listeners_of(pids: &[u32]) -> Vec<Address> {
    let held: HashSet<u64> = pids.iter().flat_map(|pid| inodes(*pid)).collect();
    listeners().into_iter().filter(|(inode, _)| held.contains(inode)).map(|(_, address)| address).collect()
}

/// Who listens on `address`; `None` also when its process belongs to someone whose files we may not see.
pub fn owner(address: &Address) -> Option<Owner> {
    let wanted: HashSet<u64> =
        listeners().into_iter().filter(|(_, found)| covers(found, address)).map(|(inode, _)| inode).collect();
    if wanted.is_empty() {
        return None;
    }
    let pid = pids().into_iter().find(|pid| inodes(*pid).iter().any(|inode| wanted.contains(inode)))?;
    let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let account = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned();
    Some(Owner { pid, uid, user: account.map_or_else(|| uid.to_string(), |account| account.name), command })
}

/// All processes below `pid` and those of its session, without `pid` itself.
pub fn descendants(pid: u32) -> Vec<u32> {
    let all: Vec<(u32, u32, u32)> = pids().into_iter().filter_map(stat).collect();
    let mut found: HashSet<u32> = HashSet::from([pid]);
    // A session counts only when `pid` leads it: otherwise it is the session of whoever started us.
    found.extend(all.iter().filter(|(_, _, session)| *session == pid).map(|(child, _, _)| *child));
    loop {
        let before = found.len();
        for (child, parent, _) in &all {
            if found.contains(parent) {
                found.insert(*child);
            }
        }
        if found.len() == before {
            break;
        }
    }
    found.remove(&pid);
    let mut found: Vec<u32> = found.into_iter().collect();
    found.sort_unstable();
    found
}

/// A wildcard listener answers on every address of its port.
fn covers(found: &Address, wanted: &Address) -> bool {
    match (found, wanted) {
        (Address::Tcp(found), Address::Tcp(wanted)) => {
            found == wanted
                || (found.port() == wanted.port() && (found.ip().is_unspecified() || wanted.ip().is_unspecified()))
        }
        _ => found == wanted,
    }
}

fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Pid, parent and session. The command name stands in parentheses and may itself hold some.
fn stat(pid: u32) -> Option<(u32, u32, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((pid, parent, session))
}

fn inodes(pid: u32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

fn listeners() -> HashMap<u64, Address> {
    let mut all = HashMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        all.extend(text.lines().skip(1).filter_map(tcp_line));
    }
    all.extend(fs::read_to_string("/proc/net/unix").unwrap_or_default().lines().skip(1).filter_map(unix_line));
    all
}

fn tcp_line(line: &str) -> Option<(u64, Address)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    // 0A = LISTEN.
    if *fields.get(3)? != "0A" {
        return None;
    }
    let (host, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((fields.get(9)?.parse().ok()?, Address::Tcp(SocketAddr::new(ip(host)?, port))))
}

/// The kernel prints each 32-bit word in the machine's own byte order.
fn ip(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for start in (0..hex.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(hex.get(start..start + 8)?, 16).ok()?.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

fn unix_line(line: &str) -> Option<(u64, Address)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    // The flag is SO_ACCEPTCON; a name with "@" is abstract and can't be an app's address.
    let accepts = u32::from_str_radix(fields.get(3)?, 16).ok()? & 0x1_0000 != 0;
    let path = fields.get(7).filter(|path| accepts && path.starts_with('/'))?;
    let start = line.find(path)?;
    Some((fields.get(6)?.parse().ok()?, Address::Unix(PathBuf::from(&line[start..]))))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixListener};

    use super::*;

    #[test]
    fn our_own_listeners_are_found_and_owned_by_us() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
        let _unix = UnixListener::bind(&path).expect("bind");
        let me = std::process::id();
        let found = listeners_of(&[me]);
        for address in [Address::Tcp(tcp.local_addr().expect("address")), Address::Unix(path)] {
            assert!(found.contains(&address), "{address} in {found:?}");
            assert_eq!(owner(&address).map(|owner| owner.pid), Some(me), "{address}");
        }
    }

    #[test]
    fn a_child_is_a_descendant() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().expect("sleep");
        let found = descendants(std::process::id());
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(found.contains(&child.id()));
    }
}
