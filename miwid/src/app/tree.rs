//! Which processes belong to an instance, and killing them all. A process belongs when it shares the main one's session
//! or group, descends from one that belongs, or carries the instance's mark in its environment: a child that forked
//! twice and made a session of its own is found only by the mark.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use super::cgroup;

/// The environment variable that marks every process of an instance.
pub(super) const MARK: &str = "MIWI_INSTANCE_ID";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) group: u32,
    pub(super) session: u32,
    pub(super) zombie: bool,
    /// Clock ticks (100 per second) of processor time.
    pub(super) ticks: u64,
    pub(super) resident_pages: u64,
}

/// Reads `/proc/PID/stat`. The command may contain anything, so fields are counted from its last parenthesis.
fn parse(text: &str) -> Option<Process> {
    let pid = text.split_once(' ')?.0.parse().ok()?;
    let rest: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| rest.get(at).and_then(|field| field.parse::<u64>().ok());
    let id = |at: usize| number(at).and_then(|value| u32::try_from(value).ok());
    Some(Process {
        pid,
        zombie: matches!(*rest.first()?, "Z" | "X"),
        parent: id(1)?,
        group: id(2)?,
        session: id(3)?,
        ticks: number(11)? + number(12)?,
        resident_pages: number(21)?,
    })
}

/// Every process there is. Blocking, but `/proc` only.
pub(super) fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|entry| fs::read(entry.path().join("stat")).ok())
        .filter_map(|stat| parse(&String::from_utf8_lossy(&stat)))
        .collect()
}

/// A zombie is not.
pub(super) fn is_alive(pid: u32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok();
    stat.and_then(|stat| parse(&String::from_utf8_lossy(&stat))).is_some_and(|it| !it.zombie)
}

fn is_marked(pid: u32, mark: &str) -> bool {
    let wanted = format!("{MARK}={mark}");
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes()))
}

/// The living members of the tree of `main`, marked `mark`.
pub(super) fn members(all: &[Process], main: u32, mark: &str) -> Vec<Process> {
    let (ourselves, parent) = (std::process::id(), std::os::unix::process::parent_id());
    let mut inside: HashSet<u32> = HashSet::from([main]);
    for process in all {
        let related = process.session == main || process.group == main;
        // Orphans come to us, or to the warden (whoever is the subreaper), or to init where there is none.
        let orphan = [ourselves, parent, 1].contains(&process.parent);
        if process.pid != ourselves && !process.zombie && (related || (orphan && is_marked(process.pid, mark))) {
            inside.insert(process.pid);
        }
    }
    loop {
        let before = inside.len();
        for process in all {
            if inside.contains(&process.parent) {
                inside.insert(process.pid);
            }
        }
        if inside.len() == before {
            break;
        }
    }
    all.iter().filter(|process| inside.contains(&process.pid) && !process.zombie).copied().collect()
}

pub(super) fn pids(main: u32, mark: &str) -> Vec<u32> {
    members(&processes(), main, mark).into_iter().map(|process| process.pid).collect()
}

/// Sends SIGKILL to the whole tree until nothing is left or `patience` is over. Blocking. Returns how many were found at
/// first; `None`: some could not be killed.
pub(super) fn kill_all(main: u32, mark: &str, group: Option<&Path>, patience: Duration) -> Option<usize> {
    let until = Instant::now() + patience;
    let mut found = None;
    loop {
        let mut living: HashSet<u32> = pids(main, mark).into_iter().collect();
        living.extend(group.map(cgroup::pids).unwrap_or_default());
        let first = *found.get_or_insert(living.len());
        if living.is_empty() {
            return Some(first);
        }
        group.map(cgroup::kill);
        for pid in living {
            // It may have gone since we looked.
            let _ = kill(raw(pid), Signal::SIGKILL);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends `signal` to every process of the tree. Blocking.
pub(super) fn signal_all(main: u32, mark: &str, signal: Signal) {
    for pid in pids(main, mark) {
        let _ = kill(raw(pid), signal);
    }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

/// Sends `signo` to the main process or to its group.
pub(super) fn signal(pid: u32, signo: i32, mode: config::KillMode) {
    let Ok(signal) = Signal::try_from(signo) else { return };
    // The process may have gone since we looked; its exit is on its way to us.
    let _ = match mode {
        config::KillMode::Group => killpg(raw(pid), signal),
        config::KillMode::Mixed | config::KillMode::Process => kill(raw(pid), signal),
    };
}

/// Makes orphaned descendants ours instead of init's.
pub(super) fn adopt_orphans() {
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "not a subreaper: daemonised children of apps escape");
    }
}

/// Reaps adopted orphans. Children that somebody here waits for must be left alone; they are reaped at once by who
/// waits, so a zombie that is seen twice is nobody's.
#[derive(Default)]
pub(super) struct Reaper {
    seen: HashMap<u32, u64>,
    round: u64,
}

impl Reaper {
    /// Call it every second or so. `ours` are the main processes that are waited for.
    pub(super) fn reap(&mut self, all: &[Process], ours: &HashSet<u32>) -> usize {
        self.round += 1;
        let ourselves = std::process::id();
        let mut reaped = 0;
        for process in all.iter().filter(|process| process.zombie && process.parent == ourselves) {
            let before = self.seen.insert(process.pid, self.round);
            if before == Some(self.round - 1) && !ours.contains(&process.pid) {
                let _ = waitpid(raw(process.pid), Some(WaitPidFlag::WNOHANG));
                reaped += 1;
            }
        }
        let round = self.round;
        self.seen.retain(|_, seen| *seen == round);
        reaped
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;

    fn until(what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < end, "never: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_command_with_blanks_and_parentheses_does_not_confuse_the_fields() {
        let line = "42 (a ) b) S 7 42 42 0 -1 0 0 0 0 0 30 12 0 0 20 0 1 0 5 100 250 0";
        let process = parse(line).expect("a stat line");
        assert_eq!((process.pid, process.parent, process.group, process.session), (42, 7, 42, 42));
        assert_eq!((process.ticks, process.resident_pages, process.zombie), (42, 250, false));
    }

    #[test]
    fn a_tree_whose_child_ignores_term_and_left_the_session_is_killed_whole() {
        let mark = format!("tree-test-{}", std::process::id());
        let script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 300' & sleep 300 & wait";
        let mut main =
            Command::new("/bin/sh").args(["-c", script]).env(MARK, &mark).process_group(0).spawn().expect("a shell");
        let pid = main.id();
        until("three processes", || pids(pid, &mark).len() >= 4);
        assert!(kill_all(pid, &mark, None, Duration::from_secs(5)).is_some_and(|found| found >= 4));
        main.wait().expect("an exit");
        assert!(pids(pid, &mark).is_empty());
    }
}
