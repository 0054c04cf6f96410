//! What a daemon is started with, and the start itself.
//!
//! Ports are free when they are picked; if another process takes one before the daemon does, the start is tried again.

use std::{
    ffi::OsString,
    fs::{self, File},
    net::SocketAddr,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::{
    Daemon, binaries,
    daemon::COMMAND,
    template::{RUN, fill, give_to, log_path, open_to_all, pick_ports, socket_path, write_config},
};

/// How often a start is tried again because a picked port was taken meanwhile.
const ATTEMPTS: usize = 4;
/// The daemon's exit code for a listener that could not be bound.
const EXIT_CONFLICT: i32 = 8;
/// How long a start may take before the test gives up.
const START: Duration = Duration::from_secs(30);

/// What a `miwictl` said.
#[derive(Clone, Debug)]
pub struct Output {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A daemon that ended by itself.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: Option<i32>,
    pub stderr: String,
}

/// What a daemon is started with.
pub struct Builder {
    config: String,
    dir: TempDir,
    ports: Vec<u16>,
    args: Vec<String>,
    env: Vec<(OsString, Option<OsString>)>,
    uid: Option<u32>,
    warden: bool,
    passed: Vec<(String, OwnedFd)>,
}

// === impl Output ===

impl Output {
    /// What a finished process said.
    pub fn of(output: &std::process::Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output and standard error.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

// === impl Builder ===

impl Builder {
    pub(crate) fn new(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("miwi-").tempdir().expect("a temporary directory");
        // Apps may run as another user and must be able to enter.
        open_to_all(dir.path());
        Self {
            config: config.to_owned(),
            dir,
            ports: pick_ports(),
            args: Vec::new(),
            env: Vec::new(),
            uid: None,
            warden: std::env::var_os("MIWI_WARDEN").is_some(),
            passed: Vec::new(),
        }
    }

    /// The directory and the ports of a daemon that is gone.
    pub(crate) fn after(config: &str, dir: TempDir, ports: Vec<u16>) -> Self {
        Self { dir, ports, ..Self::new(config) }
    }

    /// An argument after `miwid run -c FILE --socket PATH`.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.args.push(argument.to_owned());
        self
    }

    /// As a warden with an engine, which is what operators get; other tests have the engine alone, unless `MIWI_WARDEN` is set.
    #[must_use]
    pub fn warden(mut self) -> Self {
        self.warden = true;
        self
    }

    /// An environment variable of the daemon.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), Some(value.into())));
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.env.push((name.into(), None));
        self
    }

    /// Descriptors of a service manager, with their names; at most three. Where none has a name, none is said.
    #[must_use]
    pub fn passing(mut self, passed: Vec<(String, OwnedFd)>) -> Self {
        assert!(passed.len() <= 3, "there are no more than three ways into a process");
        self.passed = passed;
        self
    }

    /// Runs the daemon as another user, who gets its directory too; the tests must be root.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// The control socket in a directory of this account; the configuration stays the tests' own. The tests must be root.
    #[must_use]
    pub fn run_directory_of(self, account: &str) -> Self {
        let path = self.dir.path().join(RUN);
        fs::create_dir(&path).expect("makes the directory");
        // Not root: there is nothing to give, and the test is skipped.
        if let Ok(Some(account)) = nix::unistd::User::from_name(account) {
            let _ = std::os::unix::fs::chown(&path, Some(account.uid.as_raw()), None);
        }
        self
    }

    /// Writes a file under the daemon's directory before the start; placeholders are filled in.
    #[must_use]
    pub fn file(self, name: &str, text: &str) -> Self {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("inside the directory")).expect("makes the directory");
        fs::write(&path, fill(text, self.dir.path(), &self.ports)).expect("writes the file");
        self
    }

    /// Writes an executable script under the daemon's directory before the start.
    #[must_use]
    pub fn script(self, name: &str, text: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let this = self.file(name, text);
        let path = this.dir.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("sets the mode");
        this
    }

    /// The directory that `{dir}` stands for.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The port that `{port}` (1), `{port2}` ... stand for.
    pub fn port(&self, number: usize) -> u16 {
        self.ports[number - 1]
    }

    /// Starts the daemon and waits until it answers; panics with its log if it does not.
    pub async fn start(mut self) -> Daemon {
        for _ in 1..ATTEMPTS {
            match self.attempt().await {
                Ok(daemon) => return daemon,
                Err((back, Refusal { code: Some(EXIT_CONFLICT), .. })) => {
                    self = *back;
                    self.ports = pick_ports();
                }
                Err((_, refusal)) => panic!("the daemon did not start: {refusal:#?}"),
            }
        }
        match self.attempt().await {
            Ok(daemon) => daemon,
            Err((_, refusal)) => panic!("the daemon did not start: {refusal:#?}"),
        }
    }

    /// Starts a daemon that is expected to end by itself, and returns how it did.
    pub async fn refusal(self) -> Refusal {
        let daemon = self.spawn();
        daemon.ended(START).await
    }

    /// `miwid check -c FILE ARGS` instead of a start.
    pub async fn check(self, args: &[&str]) -> Output {
        let config = self.dir.path().join("miwid.toml");
        write_config(&config, &self.config, self.dir.path(), &self.ports);
        let mut command = tokio::process::Command::new(binaries::miwid());
        command.arg("check").arg("-c").arg(&config).args(args).stdin(Stdio::null()).kill_on_drop(true);
        let output =
            tokio::time::timeout(COMMAND, command.output()).await.expect("miwid check ends").expect("miwid runs");
        Output::of(&output)
    }

    async fn attempt(self) -> Result<Daemon, (Box<Self>, Refusal)> {
        let mut daemon = self.spawn_in();
        let end = Instant::now() + START;
        loop {
            if let Some(status) = daemon.try_wait() {
                let stderr = fs::read_to_string(log_path(self.dir.path())).unwrap_or_default();
                return Err((Box::new(self), Refusal { code: status.code(), stderr }));
            }
            if answers(&self).await {
                return Ok(Daemon::running(daemon.release(), self.dir, self.ports));
            }
            if Instant::now() > end {
                let log = fs::read_to_string(log_path(self.dir.path())).unwrap_or_default();
                panic!("the daemon did not answer within {START:?}; its log:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    /// Starts without waiting for anything.
    pub fn spawn(self) -> Daemon {
        let child = self.spawn_in().release();
        Daemon::running(child, self.dir, self.ports)
    }

    /// What the daemon is started by: itself, or a shell that moves descriptors to where a service manager would pass them.
    fn command(&self, log: &File) -> Command {
        let mut stdio = self.passed.iter().map(|(_, it)| Stdio::from(it.try_clone().expect("a copy")));
        let log_file = || Stdio::from(log.try_clone().expect("a second handle"));
        let (stdin, stdout, stderr) = (stdio.next(), stdio.next(), stdio.next());
        let mut command = match self.passed.len() {
            0 => Command::new(binaries::miwid()),
            count => {
                let moves: String = (0..count).map(|it| format!("{}<&{it} ", it + 3)).collect();
                let mut shell = Command::new("bash");
                let script = format!("exec {moves} </dev/null >>\"$0\" 2>&1; export LISTEN_PID=$$; exec \"$@\"");
                shell.args(["-c", &script]).arg(log_path(self.dir.path())).arg(binaries::miwid());
                shell.env("LISTEN_FDS", count.to_string());
                let names: Vec<&str> = self.passed.iter().map(|(name, _)| name.as_str()).collect();
                if names.iter().any(|it| !it.is_empty()) {
                    shell.env("LISTEN_FDNAMES", names.join(":"));
                }
                shell
            }
        };
        command.stdin(stdin.unwrap_or_else(Stdio::null));
        command.stdout(stdout.unwrap_or_else(log_file)).stderr(stderr.unwrap_or_else(log_file));
        command
    }

    fn spawn_in(&self) -> Guarded {
        let dir = self.dir.path();
        let config = dir.join("miwid.toml");
        write_config(&config, &self.config, dir, &self.ports);
        let log = File::options().create(true).append(true).open(log_path(dir)).expect("opens the log");
        let mut command = self.command(&log);
        command
            .arg("run")
            .arg("-c")
            .arg(&config)
            .arg("--socket")
            .arg(socket_path(dir))
            .args(self.args.iter().map(|it| fill(it, dir, &self.ports)))
            .current_dir(dir)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("MIWID_CONFIG")
            .env_remove("MIWID_SOCKET")
            .env_remove("RUST_LOG");
        if !self.warden {
            command.arg("--single-process");
        }
        if let Some(uid) = self.uid {
            give_to(dir, uid);
            std::os::unix::process::CommandExt::uid(&mut command, uid);
            std::os::unix::process::CommandExt::gid(&mut command, uid);
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Guarded(Some(command.spawn().expect("miwid runs")))
    }
}

/// A child that is killed unless it was released: a panic while starting must leave nothing behind.
struct Guarded(Option<Child>);

impl Guarded {
    fn try_wait(&mut self) -> Option<ExitStatus> {
        self.0.as_mut().and_then(|child| child.try_wait().expect("waits for the child"))
    }

    fn release(mut self) -> Child {
        self.0.take().expect("a child is released once")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The listener accepts, and the control plane speaks, which it does when every listener is open. That its socket accepts would be
/// too early: it is the first thing that a daemon opens.
async fn answers(builder: &Builder) -> bool {
    let text = fs::read_to_string(builder.dir().join("miwid.toml")).unwrap_or_default();
    let port = builder.ports[0];
    let http = !text.contains(&format!("http_port = {port}"))
        || TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.is_ok();
    http && speaks(&socket_path(builder.dir())).await
}

/// A server of HTTP/2 says its settings first (RFC 9113, 3.4).
async fn speaks(socket: &Path) -> bool {
    const LOOK: Duration = Duration::from_secs(1);
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let settings = async {
        let mut stream = UnixStream::connect(socket).await.ok()?;
        stream.write_all(PREFACE).await.ok()?;
        stream.read_u8().await.ok()
    };
    tokio::time::timeout(LOOK, settings).await.ok().flatten().is_some()
}
