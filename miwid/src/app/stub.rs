//! The program between the daemon and an app: the daemon starts itself as `miwid-launch`, this reads the launch from fd 0,
//! sets the process up and becomes the app. It runs in a fresh single-threaded process, which is why nothing here needs
//! `pre_exec`. Success is the end of file that the exec makes of fd 0; anything else that comes back is the failed step.

use std::{
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixStream,
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::Command,
};

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, chdir, dup2_stdin, setgroups, setresgid, setresuid, setsid},
};
use serde::{Deserialize, Serialize};

use super::spec::Launch;
use crate::link::Identity;

/// The name (`argv[0]`) that makes the daemon's program act as the stub.
pub const NAME: &str = "miwid-launch";
const OPEN_FILES: u64 = 65_536;
const OOM_SCORE: &str = "100";

/// A launch as it crosses the socket; secrets in the clear, so never `Debug`.
#[derive(Serialize, Deserialize)]
pub(super) struct Wire {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    working_dir: PathBuf,
    user: Option<(u32, u32, Vec<u32>)>,
    group: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) step: String,
    pub(super) errno: i32,
}

impl From<&Launch> for Wire {
    fn from(launch: &Launch) -> Self {
        Self {
            argv: launch.argv.clone(),
            env: launch.env.iter().map(|(key, value)| (key.clone(), value.expose().to_owned())).collect(),
            working_dir: launch.working_dir.clone(),
            user: launch.user.as_ref().map(|user| (user.uid, user.gid, user.groups.clone())),
            group: launch.group.clone(),
        }
    }
}

type Step<T> = Result<T, Failure>;

fn step<T>(name: &str, outcome: Result<T, nix::Error>) -> Step<T> {
    outcome.map_err(|errno| Failure { step: name.into(), errno: errno as i32 })
}

fn io_step<T>(name: &str, outcome: std::io::Result<T>) -> Step<T> {
    outcome.map_err(|error| Failure { step: name.into(), errno: error.raw_os_error().unwrap_or(0) })
}

/// Never returns: it becomes the app, or reports why not and exits.
pub fn main() -> ! {
    let mut parent = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(_) => std::process::exit(127),
    };
    if let Err(failure) = obey_warden().and_then(|()| become_app(&mut parent)) {
        let report = serde_json::to_vec(&failure).unwrap_or_default();
        // When the daemon has gone there is nobody left to tell.
        let _ = parent.write_all(&report);
    }
    std::process::exit(127)
}

/// Which account this is may be the warden's to say, and not the engine's, of whom nothing has been read yet.
fn obey_warden() -> Step<()> {
    let Some(identity) = std::env::args().nth(1) else { return Ok(()) };
    // Afterwards it may not be possible any more.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    io_step("become the account of `[server] user`", Identity::parse(&identity).and_then(|it| it.take_on(false)))
}

fn become_app(parent: &mut UnixStream) -> Step<()> {
    let mut text = Vec::new();
    io_step("read the launch", parent.read_to_end(&mut text))?;
    let wire: Wire =
        serde_json::from_slice(&text).map_err(|_| Failure { step: "understand the launch".into(), errno: 0 })?;
    step("setsid", setsid())?;
    // The warden reads its signals from a descriptor and blocks them for that, which is inherited.
    step("unblock signals", nix::sys::signal::SigSet::all().thread_unblock())?;
    if let Some(group) = &wire.group {
        io_step("join the control group", std::fs::write(group.join("cgroup.procs"), "0"))?;
    }
    // When memory runs out, an app goes before its daemon. Refused where containers forbid it.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    limits()?;
    // The app's socket must be reachable for the daemon's group and for nobody else.
    umask(Mode::from_bits_truncate(0o007));
    if let Some((uid, gid, groups)) = &wire.user {
        switch_user(*uid, *gid, groups)?;
    }
    step("give up new privileges", nix::sys::prctl::set_no_new_privs())?;
    // After the switch, so that a permission error is the one that the app itself would see.
    step("chdir", chdir(&wire.working_dir))?;
    close_others(parent);
    let null = io_step("open /dev/null", std::fs::File::open("/dev/null"))?;
    step("close stdin", dup2_stdin(null))?;
    let Some((program, args)) = wire.argv.split_first() else {
        return Err(Failure { step: "exec".into(), errno: nix::errno::Errno::ENOENT as i32 });
    };
    // `exec` also gives SIGPIPE its default back.
    let error = Command::new(program).args(args).env_clear().envs(wire.env).exec();
    Err(Failure { step: "exec".into(), errno: error.raw_os_error().unwrap_or(0) })
}

/// Ours all close at exec; what the daemon itself inherited may not.
fn close_others(parent: &UnixStream) {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2 && *fd != parent.as_raw_fd()) {
        // One of them was the directory itself, which is closed by now.
        let _ = nix::unistd::close(fd);
    }
}

fn limits() -> Step<()> {
    let (_, hard) = step("read the limit of open files", getrlimit(Resource::RLIMIT_NOFILE))?;
    let files = OPEN_FILES.min(hard);
    step("limit open files", setrlimit(Resource::RLIMIT_NOFILE, files, files))?;
    step("limit core dumps", setrlimit(Resource::RLIMIT_CORE, 0, 0))
}

fn switch_user(uid: u32, gid: u32, groups: &[u32]) -> Step<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if uid == Uid::current() && !uid.is_root() {
        return Ok(());
    }
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    step("setgroups", setgroups(&groups))?;
    step("setgid", setresgid(gid, gid, gid))?;
    step("setuid", setresuid(uid, uid, uid))
}
