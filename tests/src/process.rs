//! Looking at processes through /proc: who is alive, who descends from whom, who listens where.
//!
//! Zombies count as dead: their sockets and memory are gone, only their exit status waits.

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// One process as /proc shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub session: u32,
    pub state: char,
    pub command: String,
}

impl Process {
    /// Reads `/proc/PID/stat`; none when it is gone.
    pub fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command stands in parentheses and may hold spaces and parentheses of its own.
        let (head, tail) = stat.rsplit_once(')')?;
        let command = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        Some(Self {
            pid,
            command,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
        })
    }
}

/// Whether `pid` runs (a zombie does not).
pub fn exists(pid: u32) -> bool {
    Process::read(pid).is_some_and(|process| process.state != 'Z')
}

/// All living processes below `pid`, without itself.
pub fn descendants(pid: u32) -> Vec<Process> {
    let all: Vec<Process> = fs::read_dir("/proc")
        .expect("/proc is there")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Process::read)
        .filter(|process| process.state != 'Z')
        .collect();
    let mut family = BTreeSet::from([pid]);
    loop {
        let before = family.len();
        family.extend(all.iter().filter(|it| family.contains(&it.parent)).map(|it| it.pid).collect::<Vec<_>>());
        if family.len() == before {
            break;
        }
    }
    all.into_iter().filter(|it| it.pid != pid && family.contains(&it.pid)).collect()
}

/// Whether something listens on this TCP port, seen without touching it: who binds it to see is in the way of whoever wants it at
/// that moment, and longer than it seems, because a child that another thread starts has a copy of the socket until it executes.
pub fn listening_on(port: u16) -> bool {
    const LISTEN: &str = "0A";
    stands_in(["tcp", "tcp6"], port, |state| state == LISTEN)
}

/// Whether a line of these tables of /proc/net has this local port and such a state.
fn stands_in(tables: [&str; 2], port: u16, accept: impl Fn(&str) -> bool) -> bool {
    let end = format!(":{port:04X}");
    let is_it = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&end)) && fields.nth(1).is_some_and(&accept)
    };
    // Without IPv6 there is no table of it.
    let text = |table: &str| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    tables.iter().any(|table| text(table).lines().skip(1).any(is_it))
}

/// Signals one process that a test started or that a daemon of a test started.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).expect("a pid fits")), signal);
}

/// A port that nobody has, and that nobody gets unasked: it lies below those that the kernel gives to connections and to listeners
/// on port 0, and no two calls in a process give the same one until all were given.
pub fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run beside each other start far from each other.
    let start = std::process::id().wrapping_mul(7_919);
    (0..COUNT)
        .map(|_| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST)
        .filter_map(|it| u16::try_from(it).ok())
        .find(|port| !listening_on(*port) && !stands_in(["udp", "udp6"], *port, |_| true))
        .expect("a port is free")
}
