//! A real `miwid run` in a temporary directory, and the ways to look at it.
//!
//! The configuration is a template: `{dir}`, `{port}`, `{port2}` ... `{port9}`, `{chaos}` and `{repository}` are filled in.
//! Ports are free when they are picked; if another process takes one before the daemon does, the start is tried again.

use std::{
    ffi::OsString,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};

use crate::{Load, Reply, WebSocket, binaries, client, process, wait};

/// How often a start is tried again because a picked port was taken meanwhile.
const ATTEMPTS: usize = 4;
/// The daemon's exit code for a listener that could not be bound.
const EXIT_CONFLICT: i32 = 8;
/// How long a start may take before the test gives up.
const START: Duration = Duration::from_secs(30);
/// How long a daemon that was asked to stop may take before it is killed.
const GRACE: Duration = Duration::from_secs(20);
/// How long a `miwictl` may take.
const COMMAND: Duration = Duration::from_secs(120);

/// A running daemon; dropping it stops it.
pub struct Daemon {
    dir: TempDir,
    ports: Vec<u16>,
    child: Child,
    stopped: Option<ExitStatus>,
}

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
    fn new(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("miwi-").tempdir().expect("a temporary directory");
        // Apps may run as another user and must be able to enter.
        open_to_all(dir.path());
        Self { config: config.to_owned(), dir, ports: pick_ports(), args: Vec::new(), env: Vec::new(), uid: None }
    }

    /// An argument after `miwid run -c FILE --socket PATH`.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.args.push(argument.to_owned());
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

    /// Runs the daemon as another user, who gets its directory too; the tests must be root.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
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
                return Ok(Daemon { child: daemon.release(), dir: self.dir, ports: self.ports, stopped: None });
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
        Daemon { child, dir: self.dir, ports: self.ports, stopped: None }
    }

    fn spawn_in(&self) -> Guarded {
        let dir = self.dir.path();
        let config = dir.join("miwid.toml");
        write_config(&config, &self.config, dir, &self.ports);
        let log = File::options().create(true).append(true).open(log_path(dir)).expect("opens the log");
        let mut command = Command::new(binaries::miwid());
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
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
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

// === impl Daemon ===

impl Daemon {
    /// Starts a daemon with `config` and waits until it answers.
    pub async fn start(config: &str) -> Self {
        Builder::new(config).start().await
    }

    /// A daemon that needs more than a configuration.
    pub fn builder(config: &str) -> Builder {
        Builder::new(config)
    }

    /// The daemon's own temporary directory, `{dir}` in the configuration.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir().join("miwid.toml")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        socket_path(self.dir())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The main listener, `{port}`.
    pub fn http(&self) -> SocketAddr {
        self.address(1)
    }

    /// The address of `{port}` (1), `{port2}` ... on the loopback.
    pub fn address(&self, number: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[number - 1]))
    }

    /// GET `path` with `Host: localhost`.
    pub async fn get(&self, path: &str) -> Reply {
        self.get_host("localhost", path).await
    }

    /// GET `path` of the site `host`.
    pub async fn get_host(&self, host: &str, path: &str) -> Reply {
        client::get(self.http(), host, path)
            .await
            .unwrap_or_else(|error| self.fail(&format!("GET {host}{path}: {error}")))
    }

    /// Sends `request` on a connection of its own.
    pub async fn request(&self, request: Request<Bytes>) -> Reply {
        let what = format!("{} {}", request.method(), request.uri());
        client::request(self.http(), request).await.unwrap_or_else(|error| self.fail(&format!("{what}: {error}")))
    }

    /// Writes `bytes` and reads until the daemon closes or falls silent.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        client::raw_exchange(self.http(), bytes.as_ref(), Duration::from_secs(2)).await
    }

    /// Opens a WebSocket to the site `host`.
    pub async fn websocket(&self, host: &str, path: &str) -> WebSocket {
        WebSocket::connect(self.http(), host, path)
            .await
            .unwrap_or_else(|error| self.fail(&format!("WebSocket: {error}")))
    }

    /// A load against the site `host`; start it with `.start()`.
    pub fn load(&self, host: &str) -> Load {
        Load::new(self.http(), host)
    }

    /// Runs `miwictl ARGS` against this daemon.
    pub async fn ctl(&self, args: &[&str]) -> Output {
        self.ctl_command(args).await
    }

    /// Runs `miwictl ARGS` and panics unless it exits with 0.
    pub async fn ctl_ok(&self, args: &[&str]) -> Output {
        let output = self.ctl(args).await;
        if output.status != 0 {
            self.fail(&format!("miwictl {}: {output:#?}", args.join(" ")));
        }
        output
    }

    /// Runs `miwictl ARGS -o json` and returns the document, also that of a failure.
    pub async fn ctl_json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.extend(["-o", "json"]);
        let output = self.ctl(&args).await;
        serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| self.fail(&format!("miwictl {}: not JSON ({error}): {output:#?}", args.join(" "))))
    }

    /// A `miwictl` that runs on its own until the test waits for it.
    pub fn ctl_child(&self, args: &[&str]) -> tokio::process::Child {
        self.miwictl(args).kill_on_drop(true).spawn().expect("miwictl runs")
    }

    async fn ctl_command(&self, args: &[&str]) -> Output {
        let run = self.miwictl(args).kill_on_drop(true).output();
        let output = tokio::time::timeout(COMMAND, run)
            .await
            .unwrap_or_else(|_| self.fail(&format!("miwictl {} did not end within {COMMAND:?}", args.join(" "))))
            .expect("miwictl runs");
        Output::of(&output)
    }

    fn miwictl(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(binaries::miwictl());
        command
            .arg("--socket")
            .arg(self.socket())
            .args(args.iter().map(|it| fill(it, self.dir(), &self.ports)))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The app `name` as `miwictl status -o json` shows it; null when there is none.
    pub async fn app(&self, name: &str) -> Value {
        let status = self.ctl_json(&["status"]).await;
        let apps = status["apps"].as_array().cloned().unwrap_or_default();
        apps.into_iter().find(|app| app["name"] == name).unwrap_or(Value::Null)
    }

    /// Waits until the app `name` is in `state` and returns it.
    pub async fn app_in_state(&self, name: &str, state: &str) -> Value {
        self.app_where(name, &format!("app {name} is {state}"), |app| app["state"] == state).await
    }

    /// Waits until `accept` likes the app `name` and returns it.
    pub async fn app_where(&self, name: &str, what: &str, accept: impl Fn(&Value) -> bool) -> Value {
        wait::for_value(wait::LATER, what, || self.app(name), accept).await
    }

    /// Waits until every desired instance of the app `name` is ready.
    pub async fn app_ready(&self, name: &str) -> Value {
        self.app_where(name, &format!("app {name} is ready"), |app| {
            app["state"] == "running" && app["ready"] == app["desired"]
        })
        .await
    }

    /// The pids of the app's instances, in the order of their slots.
    pub async fn app_pids(&self, name: &str) -> Vec<u32> {
        let app = self.app(name).await;
        let instances = app["instances"].as_array().cloned().unwrap_or_default();
        let mut pids: Vec<(u64, u32)> = instances
            .iter()
            .filter_map(|it| Some((it["slot"].as_u64().unwrap_or(0), u32::try_from(it["pid"].as_u64()?).ok()?)))
            .filter(|(_, pid)| *pid != 0)
            .collect();
        pids.sort_unstable();
        pids.into_iter().map(|(_, pid)| pid).collect()
    }

    /// Everything an operator is told about the app: `app status` for eyes and for scripts.
    pub async fn told(&self, name: &str) -> String {
        let page = self.ctl(&["app", "status", name]).await.all();
        format!("{page}\n{}\n{}", self.ctl(&["app", "status", name, "-o", "json"]).await.stdout, self.app(name).await)
    }

    /// Waits until the operator is told one of `words` about the app; upper and lower case are the same.
    pub async fn told_any(&self, name: &str, words: &[&str]) -> String {
        let what = format!("an operator is told one of {words:?} about {name}");
        wait::for_value(
            wait::LATER,
            &what,
            || self.told(name),
            |text| {
                let text = text.to_lowercase();
                words.iter().any(|word| text.contains(&word.to_lowercase()))
            },
        )
        .await
    }

    /// What the daemon wrote to standard output and error.
    pub fn log(&self) -> String {
        fs::read_to_string(log_path(self.dir())).unwrap_or_default()
    }

    /// A file under the daemon's directory, or the empty string.
    pub fn read(&self, name: &str) -> String {
        fs::read(self.dir().join(name)).map(|it| String::from_utf8_lossy(&it).into_owned()).unwrap_or_default()
    }

    /// Writes a file under the daemon's directory; placeholders are filled in.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().expect("inside the directory")).expect("makes the directory");
        fs::write(path, fill(text, self.dir(), &self.ports)).expect("writes the file");
    }

    /// Replaces the configuration file; nothing happens until a reload.
    pub fn rewrite_config(&self, text: &str) {
        write_config(&self.config_path(), text, self.dir(), &self.ports);
    }

    /// `miwictl reload`.
    pub async fn reload(&self) -> Output {
        self.ctl(&["reload"]).await
    }

    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Signals a process that this daemon started.
    pub fn signal_pid(&self, pid: u32, signal: Signal) {
        process::signal(pid, signal);
    }

    /// Asks the daemon to stop and waits for it.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.exit_status(wait::LATER).await
    }

    /// Waits until the daemon ended by itself.
    pub async fn ended(mut self, deadline: Duration) -> Refusal {
        let status = self.exit_status(deadline).await;
        Refusal { code: status.code(), stderr: self.log() }
    }

    async fn exit_status(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait().expect("waits for the child") {
                self.stopped = Some(status);
                return status;
            }
            if Instant::now() > end {
                self.fail(&format!("the daemon did not end within {deadline:?}"));
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what}")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the daemon in {} ---\n{}--- end ---", self.dir().display(), self.log());
        }
        if self.stopped.is_some() {
            return;
        }
        let family = process::descendants(self.pid());
        process::signal(self.pid(), Signal::SIGTERM);
        // A second SIGTERM means "at once": a test is over, nothing has to drain.
        process::signal(self.pid(), Signal::SIGTERM);
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for orphan in
            family.iter().filter(|it| process::Process::read(it.pid).is_some_and(|now| now.session == it.session))
        {
            process::signal(orphan.pid, Signal::SIGKILL);
        }
    }
}

// === the template ===

/// Fills in the placeholders of a configuration, a script or an argument. `{{port}}` stays as miwid's own `{port}`.
fn fill(text: &str, dir: &Path, ports: &[u16]) -> String {
    let mut text = text
        .replace("{{port}}", "\u{1}")
        .replace("{dir}", &dir.display().to_string())
        .replace("{repository}", &binaries::repository().display().to_string())
        .replace("{port}", &ports[0].to_string());
    if text.contains("{chaos}") {
        text = text.replace("{chaos}", &binaries::chaos_app().display().to_string());
    }
    for (index, port) in ports.iter().enumerate().skip(1) {
        text = text.replace(&format!("{{port{}}}", index + 1), &port.to_string());
    }
    text.replace('\u{1}', "{port}")
}

/// Adds what every test daemon needs and the test did not say. New tables come last, so that
/// the lines of the test's own text keep their numbers.
fn write_config(path: &Path, text: &str, dir: &Path, ports: &[u16]) {
    fs::write(path, fill(&complete(text), dir, ports)).expect("writes the configuration");
}

fn complete(text: &str) -> String {
    let has = |line: &str| text.lines().any(|it| it.trim() == line);
    let defaults = ["bind = [\"127.0.0.1\"]", "http_port = {port}", "https_port = 0", "state_dir = \"{dir}/state\""];
    let mut full = text.to_owned();
    if has("[server]") {
        let missing: Vec<&str> = defaults
            .into_iter()
            .filter(|it| !table(text, "[server]").contains(it.split(' ').next().unwrap_or(it)))
            .collect();
        // The lines below the header move down: a test about line numbers says all of `[server]` itself.
        full = full.replacen("[server]", &format!("[server]\n{}", missing.join("\n")), 1);
    } else {
        full.push_str(&format!("\n[server]\n{}\n", defaults.join("\n")));
    }
    if !has("[admin]") {
        full.push_str("\n[admin]\nlisten = \"off\"\n");
    }
    if !text.contains("[logging") {
        full.push_str("\n[logging]\nlevel = \"debug\"\n[logging.access_log]\nenabled = true\npath = \"{dir}/access.log\"\nformat = \"json\"\nbuffer_size = 1\n");
    }
    full
}

/// The lines of one table, up to the next header.
fn table<'a>(text: &'a str, header: &str) -> &'a str {
    let Some(start) = text.find(header) else { return "" };
    let rest = &text[start + header.len()..];
    rest.find("\n[").map_or(rest, |end| &rest[..end])
}

fn pick_ports() -> Vec<u16> {
    (0..9).map(|_| process::free_port()).collect()
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("sets the mode");
}

fn give_to(path: &Path, uid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("changes the owner");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("reads the directory") {
            give_to(&entry.expect("an entry").path(), uid);
        }
    }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("daemon.log")
}

fn socket_path(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// The listener accepts and the control socket does.
async fn answers(builder: &Builder) -> bool {
    let text = fs::read_to_string(builder.dir().join("miwid.toml")).unwrap_or_default();
    let port = builder.ports[0];
    let http = !text.contains(&format!("http_port = {port}"))
        || TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.is_ok();
    http && UnixStream::connect(socket_path(builder.dir())).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_tables_gets_the_defaults_behind_its_own_lines() {
        let full = complete("[backends.\"a.test\"]\nroot = \"x\"");
        assert!(full.starts_with("[backends.\"a.test\"]\nroot = \"x\"\n"));
        assert!(full.contains("http_port = {port}"));
        assert!(full.contains("listen = \"off\""));
    }

    #[test]
    fn what_the_test_says_is_kept() {
        let full = complete("[server]\nhttp_port = 0\n\n[admin]\nlisten = \"127.0.0.1:{port2}\"\n");
        assert!(full.contains("http_port = 0") && !full.contains("http_port = {port}"));
        assert!(!full.contains("\"off\""));
    }

    #[test]
    fn placeholders_are_filled_in() {
        let ports: Vec<u16> = (1..10).collect();
        assert_eq!(fill("{dir}/x {port} {port3} {{port}}", Path::new("/d"), &ports), "/d/x 1 3 {port}");
    }
}
