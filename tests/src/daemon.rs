//! A real `miwid run` in a temporary directory, and the ways to look at it.
//!
//! The configuration is a template: `{dir}`, `{port}`, `{port2}` ... `{port9}`, `{chaos}` and `{repository}` are filled in.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Builder, Load, Output, Refusal, Reply, WebSocket, binaries, client, process,
    template::{fill, log_path, socket_path, write_config},
    wait,
};

/// How long a daemon that was asked to stop may take before it is killed.
const GRACE: Duration = Duration::from_secs(20);
/// How long a `miwictl` may take.
pub(crate) const COMMAND: Duration = Duration::from_secs(120);

/// A running daemon; dropping it stops it.
pub struct Daemon {
    dir: TempDir,
    ports: Vec<u16>,
    child: Child,
    stopped: Option<ExitStatus>,
}

// === impl Daemon ===

impl Daemon {
    pub(crate) fn running(child: Child, dir: TempDir, ports: Vec<u16>) -> Self {
        Self { dir, ports, child, stopped: None }
    }

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

    /// The same at one blow, as editors do it: a reload that runs meanwhile reads one text or the other.
    pub fn replace_config(&self, text: &str) {
        let next = self.dir().join("next.toml");
        write_config(&next, text, self.dir(), &self.ports);
        fs::rename(next, self.config_path()).expect("replaces the configuration");
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

    /// Kills all of it at once, as a service manager does with what is left of a service; what comes back starts another one,
    /// with `config`, in the same place.
    pub async fn killed(mut self, config: &str) -> Builder {
        let family = process::descendants(self.pid());
        self.signal(Signal::SIGKILL);
        family.iter().for_each(|it| process::signal(it.pid, Signal::SIGKILL));
        self.exit_status(wait::LATER).await;
        wait::until(wait::LATER, "nothing of it is left", async || family.iter().all(|it| !process::exists(it.pid)))
            .await;
        let empty = TempDir::new().expect("a temporary directory");
        Builder::after(config, std::mem::replace(&mut self.dir, empty), std::mem::take(&mut self.ports))
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
