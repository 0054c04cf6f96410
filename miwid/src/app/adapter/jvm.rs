//! The Java machine of an app: where it is, how new it is, and the options that keep it within its memory. Without options
//! a machine takes a quarter of the *host's* memory for its heap, whatever limit the app was given.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use config::{Process, Secret};

use super::{Obstacle, executable};
use crate::app::environment;

const MIB: u64 = 1 << 20;
/// How large the machine is made when no limit says so: a quarter of the memory, and no more than this.
const UNLIMITED_MAX: u64 = 1 << 30;
/// Below this a web app hardly starts.
const SMALL: u64 = 384 * MIB;
/// A heap smaller than this is better off without the threads of G1.
const SERIAL_BELOW: u64 = 1792 * MIB;
/// `java -version` answers within so long.
const VERSION_PATIENCE: Duration = Duration::from_secs(5);

/// Percent of the limit that may be heap; the rest is for classes, code, threads and buffers.
const HEAP_SHARES: [(u64, u64); 5] =
    [(256 * MIB, 44), (512 * MIB, 60), (1024 * MIB, 69), (2048 * MIB, 75), (4096 * MIB, 78)];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Java {
    pub(super) home: PathBuf,
    /// 8, 17, 21 ...
    pub(super) version: u32,
}

/// What the size of a machine depends on.
#[derive(Clone, Copy, Debug)]
struct Room {
    limit: Option<u64>,
    memory: u64,
    cpus: f64,
    /// Whether `cpus` is a limit, and not what the host has.
    cpus_limited: bool,
}

// === impl Java ===

impl Java {
    pub(super) fn find(process: &Process, env: &[(String, Secret)]) -> Result<Self, Obstacle> {
        let named = process.jvm.java_home.clone();
        let named = named.or_else(|| environment::value(env, "JAVA_HOME").map(PathBuf::from));
        let program = match &named {
            Some(home) => Some(home.join("bin/java")).filter(|java| executable(java)),
            None => on_path(env),
        };
        let hint = "install one (apt-get install default-jre-headless), or set jvm.java_home".to_owned();
        let Some(program) = program else {
            let place = named.map_or_else(|| "PATH".to_owned(), |home| home.join("bin").display().to_string());
            return Err(Obstacle::new("app-java-missing", "jvm.java_home", format!("no java in {place}"), hint));
        };
        let program = program.canonicalize().unwrap_or(program);
        let home = program.parent().and_then(Path::parent).unwrap_or(Path::new("/")).to_owned();
        let version = written_version(&home).or_else(|| asked_version(&program)).ok_or_else(|| {
            Obstacle::new(
                "app-java-version",
                "jvm.java_home",
                format!("{} does not tell its version", program.display()),
                hint,
            )
        })?;
        Ok(Self { home, version })
    }

    pub(super) fn program(&self) -> String {
        self.home.join("bin/java").display().to_string()
    }

    /// The major number of class files that it can still read.
    pub(super) fn class_version(&self) -> u32 {
        self.version + 44
    }
}

fn on_path(env: &[(String, Secret)]) -> Option<PathBuf> {
    let path = environment::value(env, "PATH").unwrap_or_default();
    path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join("java")).find(|it| executable(it))
}

/// Every Java home since 8 has this file; reading it is cheaper than a start of the machine.
fn written_version(home: &Path) -> Option<u32> {
    let text = fs::read_to_string(home.join("release")).ok()?;
    major(text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="))?.trim_matches('"'))
}

fn asked_version(program: &Path) -> Option<u32> {
    let mut child = Command::new(program)
        .arg("-version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let until = Instant::now() + VERSION_PATIENCE;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().ok()?;
    major(String::from_utf8_lossy(&output.stderr).split('"').nth(1)?)
}

/// `17.0.15` is 17, `1.8.0_402` is 8, `21-ea` is 21.
fn major(text: &str) -> Option<u32> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|it| it.parse().ok());
    match numbers.next()? {
        1 => numbers.next(),
        first => Some(first),
    }
}

/// The options of the machine, in the order in which the last one wins, and what the operator should know of them.
pub(super) fn options(process: &Process) -> Result<(Vec<String>, Vec<String>), Obstacle> {
    let host = std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64);
    let room = Room {
        limit: process.memory_limit.map(config::ByteSize::bytes),
        memory: host_memory(),
        cpus: process.cpu_limit.unwrap_or(host),
        cpus_limited: process.cpu_limit.is_some(),
    };
    sized(process, room)
}

fn host_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<u64>().ok()).map_or(4 << 30, |it| it << 10)
}

fn sized(process: &Process, room: Room) -> Result<(Vec<String>, Vec<String>), Obstacle> {
    let jvm = &process.jvm;
    let size = room.limit.unwrap_or_else(|| UNLIMITED_MAX.min(room.memory / 4));
    let mut notices = Vec::new();
    match room.limit {
        None => notices.push(format!("no memory_limit: the Java machine is made for {} MiB", size / MIB)),
        Some(limit) if limit < SMALL => {
            notices.push(format!("memory_limit of {} MiB is too small for most Java apps", limit / MIB));
        }
        Some(_) => {}
    }
    let mut options = Vec::new();
    match jvm.heap.map(config::ByteSize::bytes) {
        Some(heap) => {
            options.push(format!("-Xmx{}m", heap / MIB));
            if room.limit.is_some_and(|limit| heap >= limit) {
                notices.push(format!("jvm.heap ({} MiB) leaves nothing of the memory_limit", heap / MIB));
            }
        }
        None => options.extend([format!("-XX:MaxRAM={size}"), format!("-XX:MaxRAMPercentage={}", heap_share(size))]),
    }
    options.push(format!("-XX:MaxMetaspaceSize={}m", (size / 4 / MIB).max(64)));
    options.extend(collector(jvm.gc.as_deref(), size, room.cpus)?);
    if room.cpus_limited {
        options.push(format!("-XX:ActiveProcessorCount={}", room.cpus.ceil().max(1.0)));
    }
    options.extend(
        ["-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true", "-Dfile.encoding=UTF-8"].map(str::to_owned),
    );
    match jvm.profile.as_deref() {
        None => {}
        Some("fast-start") => options.extend(["-XX:TieredStopAtLevel=1", "-Xshare:auto"].map(str::to_owned)),
        Some(other) => {
            let message = format!("there is no profile {other:?}");
            return Err(Obstacle::new(
                "app-jvm-profile",
                "jvm.profile",
                message,
                "use \"fast-start\", or none".to_owned(),
            ));
        }
    }
    options.extend(jvm.options.iter().cloned());
    Ok((options, notices))
}

/// Between the steps of the table in a straight line.
fn heap_share(size: u64) -> u64 {
    let above = HEAP_SHARES.iter().position(|(at, _)| size <= *at);
    match above {
        Some(0) => HEAP_SHARES[0].1,
        None => HEAP_SHARES[HEAP_SHARES.len() - 1].1,
        Some(next) => {
            let ((low, less), (high, more)) = (HEAP_SHARES[next - 1], HEAP_SHARES[next]);
            less + (more - less) * (size - low) / (high - low)
        }
    }
}

/// Said always: a limit given by `MaxRAM` does not change which collector the machine chooses.
fn collector(wanted: Option<&str>, size: u64, cpus: f64) -> Result<Vec<String>, Obstacle> {
    let flag = match wanted {
        Some("serial") => "-XX:+UseSerialGC",
        Some("parallel") => "-XX:+UseParallelGC",
        Some("g1") => "-XX:+UseG1GC",
        Some("zgc") => "-XX:+UseZGC",
        Some("shenandoah") => "-XX:+UseShenandoahGC",
        None if cpus < 2.0 || size < SERIAL_BELOW => "-XX:+UseSerialGC",
        None => "-XX:+UseG1GC",
        Some(other) => {
            let message = format!("there is no collector {other:?}");
            let hint = "use serial, parallel, g1, zgc or shenandoah".to_owned();
            return Err(Obstacle::new("app-jvm-gc", "jvm.gc", message, hint));
        }
    };
    Ok(vec![flag.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(text: &str) -> Process {
        let text = format!("[backends.\"a.test\"]\napp_type = \"java\"\n{text}");
        let loaded = config::load_text(Path::new("m.toml"), &text, &[], &config::Capabilities::default());
        let config = loaded.expect("a configuration").config;
        config.backends.values().next().and_then(|backend| backend.process.clone()).expect("a process")
    }

    fn flags(limit: Option<u64>, cpus: f64, jvm: &str) -> String {
        let process = process(&format!("process = {{ command = \"a.jar\" }}\njvm = {{ {jvm} }}"));
        let room = Room { limit, memory: 64 << 30, cpus, cpus_limited: false };
        sized(&process, room).expect("options").0.join(" ")
    }

    #[test]
    fn the_heap_is_a_share_of_the_limit_that_grows_with_it() {
        for (mebibytes, heap) in [(256, 112), (512, 307), (1024, 706), (2048, 1536), (8192, 6389)] {
            assert_eq!(mebibytes * heap_share(mebibytes * MIB) / 100, heap, "{mebibytes} MiB");
        }
        assert_eq!(heap_share(768 * MIB), 64);
        let found = flags(Some(512 * MIB), 4.0, "");
        assert!(found.starts_with("-XX:MaxRAM=536870912 -XX:MaxRAMPercentage=60 -XX:MaxMetaspaceSize=128m"), "{found}");
    }

    #[test]
    fn without_a_limit_the_host_does_not_count() {
        assert!(flags(None, 4.0, "").contains("-XX:MaxRAM=1073741824 "));
    }

    #[test]
    fn a_heap_that_the_operator_chose_wins_and_his_options_come_last() {
        let found = flags(Some(512 * MIB), 4.0, "heap = \"200MB\", options = [\"-Xss512k\"]");
        assert!(found.starts_with("-Xmx200m ") && found.ends_with(" -Xss512k") && !found.contains("MaxRAM"), "{found}");
    }

    #[test]
    fn the_collector_is_always_named() {
        for (limit, cpus, jvm, expected) in [
            (512, 4.0, "", "-XX:+UseSerialGC"),
            (4096, 1.0, "", "-XX:+UseSerialGC"),
            (4096, 4.0, "", "-XX:+UseG1GC"),
            (512, 4.0, "gc = \"zgc\"", "-XX:+UseZGC"),
        ] {
            assert!(flags(Some(limit * MIB), cpus, jvm).contains(expected), "{limit} {cpus} {jvm}");
        }
        assert!(collector(Some("best"), 1, 1.0).is_err());
    }

    #[test]
    fn versions_old_and_new_are_understood() {
        for (text, expected) in [("17.0.15", Some(17)), ("1.8.0_402", Some(8)), ("21-ea", Some(21)), ("", None)] {
            assert_eq!(major(text), expected, "{text}");
        }
    }
}
