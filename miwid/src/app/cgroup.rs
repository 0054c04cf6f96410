//! Control groups (cgroup v2) of instances, where the system lets us have them: limits that hold whatever a program does,
//! and a kill that nothing escapes. Where it does not, limits are said to be unenforced and the kill goes by session and
//! mark alone. Blocking, but on a file system that lives in memory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use config::Process;

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Where the daemon itself is: groups with children may hold no processes.
const BESIDE: &str = "supervisor";
/// Microseconds in which an instance may use its share of the processors.
const CPU_PERIOD: f64 = 100_000.0;

/// Where the groups of instances are.
#[derive(Debug)]
pub(super) struct Cgroups {
    root: Result<PathBuf, String>,
    /// Of `CONTROLLERS`, those that work.
    enforced: Vec<&'static str>,
}

/// What ended a group, as the kernel tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) kills: u64,
    pub(super) limit: Option<u64>,
    pub(super) peak: Option<u64>,
}

// === impl Cgroups ===

impl Cgroups {
    /// Looks for the daemon's own group, and takes it over when it is meant to be: the daemon moves one level down, as
    /// groups with children may hold no processes themselves.
    /// `warden`: the pid of whoever outlives this process and its instances.
    pub(super) fn open(warden: Option<u32>) -> Self {
        let owner = warden.unwrap_or_else(std::process::id);
        let root = own_group(owner).and_then(|own| claim(&own, owner));
        let (root, enforced) = match root {
            Ok((root, enforced)) => (Ok(root), enforced),
            Err(why) => (Err(why), Vec::new()),
        };
        match &root {
            Ok(_) => tracing::info!(controllers = enforced.join(" "), "instances get control groups of their own"),
            Err(why) => tracing::info!("no control groups for instances: {why}"),
        }
        Self { root, enforced }
    }

    /// At the end of the daemon. What cannot be removed is swept by the next one.
    pub(super) fn close(&self) {
        let Ok(root) = &self.root else { return };
        for group in fs::read_dir(root).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(group.path());
        }
        let _ = fs::remove_dir(root);
    }

    pub(super) fn place(&self, instance: &str) -> Option<PathBuf> {
        self.root.as_ref().ok().map(|root| root.join(instance))
    }

    /// What the configuration asks for and the system does not give.
    pub(super) fn unenforced(&self, process: &Process) -> Option<String> {
        let missing: Vec<&str> = limits(process)
            .into_iter()
            .filter(|(controller, ..)| !self.enforced.contains(controller))
            .map(|(_, key, ..)| key)
            .collect();
        if missing.is_empty() {
            return None;
        }
        let why = match &self.root {
            Ok(_) => "the controllers of cgroup v2 are not available here",
            Err(why) => why.as_str(),
        };
        Some(format!("{} not enforced: {why}", missing.join(", ")))
    }

    /// Makes the group of an instance, with the limits that work here.
    pub(super) fn create(&self, at: &Path, process: &Process) -> io::Result<()> {
        fs::create_dir(at)?;
        for (_, _, file, value) in limits(process).into_iter().filter(|(it, ..)| self.enforced.contains(it)) {
            fs::write(at.join(file), value)?;
        }
        if process.memory_limit.is_some() && self.enforced.contains(&"memory") {
            // Else the limit would only be where swapping begins. Not there without swap.
            let _ = fs::write(at.join("memory.swap.max"), "0");
        }
        // One killed worker would leave a crippled app.
        let _ = fs::write(at.join("memory.oom.group"), "1");
        Ok(())
    }
}

/// Controller, key of the configuration, file and value.
fn limits(process: &Process) -> Vec<(&'static str, &'static str, &'static str, String)> {
    let memory = process.memory_limit.map(|it| ("memory", "memory_limit", "memory.max", it.bytes().to_string()));
    let quota = |cpus: f64| format!("{} {CPU_PERIOD}", (cpus * CPU_PERIOD).round().max(1_000.0));
    let cpu = process.cpu_limit.map(|cpus| ("cpu", "cpu_limit", "cpu.max", quota(cpus)));
    let pids = process.pids_limit.map(|it| ("pids", "pids_limit", "pids.max", it.to_string()));
    [memory, cpu, pids].into_iter().flatten().collect()
}

/// The daemon's group, if it is ours to divide.
fn own_group(owner: u32) -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = mounts.lines().find_map(mounted).ok_or("cgroup v2 is not mounted")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::")).ok_or("this process is in no cgroup")?;
    let own = mount.join(path.trim_start_matches('/'));
    // An engine before this one has moved our parent, and so us.
    if let Some(outer) = own.parent().filter(|it| own.ends_with(BESIDE) && it.join(format!("miwid.{owner}")).exists()) {
        return Ok(outer.to_owned());
    }
    // A namespace's root belongs to who is in it; anywhere else somebody must have said that it is ours.
    if path == "/" || is_delegated(&own) {
        return Ok(own);
    }
    Err(format!("the cgroup {path} is not delegated (systemd: Delegate=cpu memory pids)"))
}

/// The mount point of a whole cgroup v2 hierarchy.
fn mounted(line: &str) -> Option<PathBuf> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (after.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
}

fn is_delegated(own: &Path) -> bool {
    let mut value = [0_u8; 8];
    let said = |name: &str, value: &mut [u8; 8]| {
        rustix::fs::getxattr(own, name, &mut value[..]).is_ok_and(|length| value[..length] == *b"1")
    };
    said("trusted.delegate", &mut value) || said("user.delegate", &mut value)
}

fn claim(own: &Path, owner: u32) -> Result<(PathBuf, Vec<&'static str>), String> {
    let failed = |what: &Path, error: &io::Error| format!("{}: {error}", what.display());
    sweep(own);
    let root = own.join(format!("miwid.{owner}"));
    fs::create_dir_all(&root).map_err(|error| failed(&root, &error))?;
    let available = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    let wanted: Vec<&'static str> =
        CONTROLLERS.into_iter().filter(|it| available.split_whitespace().any(|name| name == *it)).collect();
    if !wanted.is_empty() {
        let below = own.join(BESIDE);
        let enter = |pid: u32| fs::write(below.join("cgroup.procs"), pid.to_string());
        let moved = fs::create_dir_all(&below).and_then(|()| enter(0)).and_then(|()| enter(owner));
        if let Err(error) = moved {
            tracing::warn!("no limits for instances: {}", failed(&below, &error));
        }
    }
    let enable = |name: &&'static str| {
        [own, &root].iter().all(|at| fs::write(at.join("cgroup.subtree_control"), format!("+{name}")).is_ok())
    };
    let enforced = wanted.into_iter().filter(enable).collect();
    Ok((root, enforced))
}

/// What daemons that were killed left behind: empty groups, since nothing outlives its daemon for long.
fn sweep(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("miwid.")?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            for group in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                kill(&group.path());
                let _ = fs::remove_dir(group.path());
            }
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The processes of a group.
pub(super) fn pids(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills every process of a group at once, also those that fork faster than anybody could count them.
pub(super) fn kill(group: &Path) {
    // Older kernels lack the file; then the kill by session and mark does it.
    let _ = fs::write(group.join("cgroup.kill"), "1");
}

pub(super) fn memory(group: &Path) -> Memory {
    let number = |file: &str| fs::read_to_string(group.join(file)).ok().and_then(|text| text.trim().parse().ok());
    let events = fs::read_to_string(group.join("memory.events")).unwrap_or_default();
    let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    Memory { kills: kills.unwrap_or(0), limit: number("memory.max"), peak: number("memory.peak") }
}

/// How often the kernel has refused the group another process.
pub(super) fn refused_forks(group: &Path) -> u64 {
    let events = fs::read_to_string(group.join("pids.events")).unwrap_or_default();
    events.lines().find_map(|line| line.strip_prefix("max ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(text: &str) -> Process {
        let text = format!("[backends.\"a.test\"]\nprocess = {{ command = \"x\", {text} }}\n");
        let loaded = config::load_text(Path::new("m.toml"), &text, &[], &config::Capabilities::default());
        let config = loaded.expect("a configuration").config;
        config.backends.values().next().and_then(|it| it.process.clone()).expect("a process")
    }

    const ALL: &str = "memory_limit = \"256MB\", cpu_limit = 1.5, pids_limit = 100";

    #[test]
    fn limits_become_files_where_their_controller_works() {
        let directory = tempfile::tempdir().expect("a directory");
        let groups = Cgroups { root: Ok(directory.path().to_owned()), enforced: vec!["cpu", "memory"] };
        let at = groups.place("shop-0-1").expect("a place");
        groups.create(&at, &process(ALL)).expect("made");
        let read = |name: &str| fs::read_to_string(at.join(name)).ok();
        assert_eq!(read("memory.max").as_deref(), Some("268435456"));
        assert_eq!(read("memory.swap.max").as_deref(), Some("0"));
        assert_eq!(read("cpu.max").as_deref(), Some("150000 100000"));
        assert_eq!(read("pids.max"), None);
        let said = groups.unenforced(&process(ALL)).expect("one is missing");
        assert!(said.starts_with("pids_limit not enforced: "), "{said}");
        assert_eq!(groups.unenforced(&process("memory_limit = \"1GB\"")), None);
    }

    #[test]
    fn without_groups_every_limit_is_said_to_be_unenforced() {
        let groups = Cgroups { root: Err("cgroup v2 is not mounted".to_owned()), enforced: Vec::new() };
        let said = groups.unenforced(&process(ALL)).expect("all are missing");
        assert_eq!(said, "memory_limit, cpu_limit, pids_limit not enforced: cgroup v2 is not mounted");
        assert_eq!(groups.unenforced(&process("")), None);
    }

    #[test]
    fn a_kill_for_want_of_memory_is_read_with_its_limit() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
        write("memory.events", "low 0\noom 1\noom_kill 2\n");
        write("memory.max", "1048576\n");
        let expected = Memory { kills: 2, limit: Some(1 << 20), peak: None };
        assert_eq!(memory(directory.path()), expected);
    }

    #[test]
    fn refused_forks_are_read_where_they_are_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(refused_forks(directory.path()), 0);
        fs::write(directory.path().join("pids.events"), "max 17\nmax.imposed 3\n").expect("written");
        assert_eq!(refused_forks(directory.path()), 17);
    }

    #[test]
    fn only_a_whole_second_hierarchy_counts() {
        for (line, expected) in [
            ("30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw", Some("/sys/fs/cgroup")),
            ("30 24 0:26 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw", None),
            ("30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", None),
        ] {
            assert_eq!(mounted(line), expected.map(PathBuf::from), "{line}");
        }
    }
}
