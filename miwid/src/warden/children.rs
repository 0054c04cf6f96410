//! The processes of the apps, as the warden keeps them: pid, pipes, and the end until an engine has heard of it.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::succession::Engine;
use crate::link::Exit;

/// SIGKILL has worked within so long, or it will not.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Instance {
    pub(super) name: String,
    pub(super) launched_by: Engine,
    /// The ends of its output that are read: closing them would kill it at its next word.
    pub(super) pipes: [OwnedFd; 2],
    pub(super) exit: Option<Exit>,
}

/// By pid. The pid of an entry is not given to anybody else before its end was noted here.
#[derive(Default)]
pub(super) struct Children {
    pub(super) instances: BTreeMap<u32, Instance>,
}

impl Children {
    /// True: it is one of the instances.
    pub(super) fn ended(&mut self, pid: u32, exit: Exit) -> bool {
        let Some(instance) = self.instances.get_mut(&pid) else { return false };
        instance.exit = Some(exit);
        true
    }

    /// Everybody who should know has been told.
    pub(super) fn forget_ended(&mut self) {
        self.instances.retain(|_, it| it.exit.is_none());
    }

    /// Kills what one engine started, or everything.
    pub(super) fn kill(&self, of: Option<Engine>) {
        for (pid, instance) in &self.instances {
            if instance.exit.is_none() && of.is_none_or(|engine| instance.launched_by == engine) {
                // It leads a session, and so a group, of its own.
                let _ = killpg(raw(*pid), Signal::SIGKILL);
                let _ = kill(raw(*pid), Signal::SIGKILL);
            }
        }
    }
}

/// The next child that has ended, without waiting. Orphans of apps come to us, too, and go the same way.
pub(super) fn reap() -> Option<(u32, Exit)> {
    loop {
        let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, Exit { code: Some(code), ..Exit::default() }),
            Ok(WaitStatus::Signaled(pid, signal, core_dumped)) => {
                (pid, Exit { code: None, signal: Some(signal as i32), core_dumped })
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => continue,
        };
        return Some((u32::try_from(pid.as_raw()).unwrap_or_default(), exit));
    }
}

/// At the very end: nothing that anybody started stays. Whatever left its session is ours by now, since orphans come to us.
pub(super) fn kill_all() {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let living = children();
        if living.is_empty() {
            return;
        }
        for pid in living {
            let _ = kill(raw(pid), Signal::SIGKILL);
        }
        while reap().is_some() {}
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn children() -> Vec<u32> {
    let text = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

pub(super) fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}
