//! Starting processes, as the supervisor sees it: a trait, so that a test or another process can do it. The one here
//! starts this very program as the stub (`app::stub`), which becomes the app; the pid stays the same.

use std::{
    future::Future,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    pin::Pin,
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::pipe},
    process::{Child, Command},
};

use super::{
    lifecycle::{Class, ExitStatus},
    spec::Launch,
    stub, tree,
};
use crate::link::{Exit, Line};

pub type Job<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The stub has confirmed its exec within so long, or something is badly wrong with the machine.
const EXEC_PATIENCE: Duration = Duration::from_secs(20);
/// How often is looked for a process whose end nobody tells us.
const LOOK: Duration = Duration::from_millis(50);
/// Pipes hold so much while nobody reads: 5 000 lines instead of 320.
const PIPE_BYTES: usize = 1 << 20;

/// A process that runs.
pub struct Launched {
    pub pid: u32,
    pub stdout: pipe::Receiver,
    pub stderr: pipe::Receiver,
    pub exit: Job<ExitStatus>,
}

/// A process that does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchError {
    /// `fork`, `chdir`, `setuid`, `exec` ...
    pub step: String,
    pub errno: i32,
}

pub trait Launcher: Send + Sync + 'static {
    fn launch(&self, launch: Launch) -> Job<Result<Launched, LaunchError>>;

    /// Who keeps the processes when the supervisor is gone; `None`: nobody.
    fn warden(&self) -> Option<&Line> {
        None
    }

    fn signal(&self, pid: u32, signo: i32, whom: config::KillMode) {
        tree::signal(pid, signo, whom);
    }

    /// Resolves with how many processes there were when all are gone, or `None` when some cannot be killed.
    fn kill_tree(&self, pid: u32, mark: String, group: Option<PathBuf>) -> Job<Option<usize>> {
        Box::pin(async move {
            let sweep = move || tree::kill_all(pid, &mark, group.as_deref(), super::lifecycle::KILL_PATIENCE);
            tokio::task::spawn_blocking(sweep).await.unwrap_or(None)
        })
    }
}

/// Starts `program` as the stub.
pub struct InProcess {
    pub program: PathBuf,
}

impl Default for InProcess {
    fn default() -> Self {
        Self { program: PathBuf::from("/proc/self/exe") }
    }
}

impl Launcher for InProcess {
    fn launch(&self, launch: Launch) -> Job<Result<Launched, LaunchError>> {
        in_time(start(self.program.clone(), launch))
    }
}

/// Has the warden start the stub, so that the app is its child and outlives this engine.
pub struct ByWarden {
    pub line: Line,
}

impl Launcher for ByWarden {
    fn launch(&self, launch: Launch) -> Job<Result<Launched, LaunchError>> {
        in_time(start_by(self.line.clone(), launch))
    }

    fn warden(&self) -> Option<&Line> {
        Some(&self.line)
    }
}

fn in_time<F>(starting: F) -> Job<Result<Launched, LaunchError>>
where
    F: Future<Output = Result<Launched, LaunchError>> + Send + 'static,
{
    Box::pin(async move {
        let late = |_| Err(LaunchError { step: "exec (no answer)".into(), errno: 0 });
        tokio::time::timeout(EXEC_PATIENCE, starting).await.unwrap_or_else(late)
    })
}

/// A stub that does not answer in time must not become an app that nobody knows.
struct Unconfirmed(Option<u32>);

impl Drop for Unconfirmed {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            tree::signal(pid, nix::libc::SIGKILL, config::KillMode::Process);
        }
    }
}

// === impl LaunchError ===

impl LaunchError {
    fn new(step: &str, error: &io::Error) -> Self {
        Self { step: step.into(), errno: error.raw_os_error().unwrap_or(0) }
    }

    /// A lack of something may pass; a wrong program will not mend by itself.
    pub fn class(&self) -> Class {
        use nix::errno::Errno::{EACCES, EINVAL, EISDIR, ELOOP, ENOENT, ENOEXEC, ENOTDIR, EPERM};
        let errno = nix::errno::Errno::from_raw(self.errno);
        let hopeless = [EACCES, EINVAL, EISDIR, ELOOP, ENOENT, ENOEXEC, ENOTDIR, EPERM].contains(&errno);
        if hopeless { Class::Permanent } else { Class::Passing }
    }
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.errno);
        write!(f, "{}: {} ({errno:?})", self.step, errno.desc())
    }
}

/// A pipe for one stream: ours to read, and the end that the app gets.
pub(super) fn stream() -> io::Result<(pipe::Receiver, Stdio)> {
    let (ours, theirs) = ends()?;
    Ok((received(ours)?, Stdio::from(theirs)))
}

fn ends() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Refused when this user's pipes already take much memory; the default size works too.
    let _ = rustix::pipe::fcntl_setpipe_size(&ours, PIPE_BYTES);
    Ok((ours, theirs))
}

async fn start(program: PathBuf, launch: Launch) -> Result<Launched, LaunchError> {
    let pipes = |error: io::Error| LaunchError::new("pipe", &error);
    let (stdout, stdout_end) = stream().map_err(pipes)?;
    let (stderr, stderr_end) = stream().map_err(pipes)?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(pipes)?;
    ours.set_nonblocking(true).map_err(pipes)?;
    let ours = UnixStream::from_std(ours).map_err(pipes)?;
    let child = Command::new(program)
        .arg0(stub::NAME)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(stdout_end)
        .stderr(stderr_end)
        // A stub that does not answer in time must not become an app that nobody knows.
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| LaunchError::new("fork", &error))?;
    let pid = child.id().unwrap_or_default();
    confirm(ours, &launch).await?;
    Ok(Launched { pid, stdout, stderr, exit: exit_of(child) })
}

async fn start_by(line: Line, launch: Launch) -> Result<Launched, LaunchError> {
    let pipes = |error: io::Error| LaunchError::new("pipe", &error);
    let (stdout, stdout_end) = ends().map_err(pipes)?;
    let (stderr, stderr_end) = ends().map_err(pipes)?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(pipes)?;
    ours.set_nonblocking(true).map_err(pipes)?;
    let ours = UnixStream::from_std(ours).map_err(pipes)?;
    let copy = |end: &OwnedFd| end.as_fd().try_clone_to_owned().map_err(pipes);
    let descriptors = [theirs.into(), stdout_end, stderr_end, copy(&stdout)?, copy(&stderr)?];
    let name = launch.env.iter().find(|(key, _)| key == tree::MARK).map(|(_, it)| it.expose().to_owned());
    let started = line.launch(name.unwrap_or_default(), descriptors).await;
    let (pid, exit) = started.map_err(|errno| LaunchError { step: "fork".into(), errno })?;
    let mut guard = Unconfirmed(Some(pid));
    confirm(ours, &launch).await?;
    guard.0 = None;
    let (stdout, stderr) = (received(stdout).map_err(pipes)?, received(stderr).map_err(pipes)?);
    Ok(Launched { pid, stdout, stderr, exit: exit_told(pid, exit) })
}

/// The end of a process that the warden watches. Without a warden it is all that can be seen that there is no process any more.
pub(super) fn exit_told(pid: u32, told: tokio::sync::oneshot::Receiver<Exit>) -> Job<ExitStatus> {
    Box::pin(async move {
        if let Ok(Exit { code, signal, core_dumped }) = told.await {
            return ExitStatus { code, signal, core_dumped };
        }
        while tree::is_alive(pid) {
            tokio::time::sleep(LOOK).await;
        }
        ExitStatus { code: None, signal: None, core_dumped: false }
    })
}

/// The end of a pipe that is read.
pub(super) fn received(end: OwnedFd) -> io::Result<pipe::Receiver> {
    rustix::io::ioctl_fionbio(&end, true)?;
    pipe::Receiver::from_owned_fd(end)
}

/// Hands the launch over and waits for the exec. On a failure the child ends by itself and tokio reaps it.
async fn confirm(mut socket: UnixStream, launch: &Launch) -> Result<(), LaunchError> {
    let lost = |error: io::Error| LaunchError::new("talk to the stub", &error);
    let wire = serde_json::to_vec(&stub::Wire::from(launch)).unwrap_or_default();
    socket.write_all(&wire).await.map_err(lost)?;
    socket.shutdown().await.map_err(lost)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.map_err(lost)?;
    if answer.is_empty() {
        return Ok(());
    }
    match serde_json::from_slice::<stub::Failure>(&answer) {
        Ok(failure) => Err(LaunchError { step: failure.step, errno: failure.errno }),
        Err(_) => Err(LaunchError { step: "understand the stub".into(), errno: 0 }),
    }
}

pub(super) fn exit_of(mut child: Child) -> Job<ExitStatus> {
    use std::os::unix::process::ExitStatusExt;
    Box::pin(async move {
        match child.wait().await {
            Ok(status) => {
                ExitStatus { code: status.code(), signal: status.signal(), core_dumped: status.core_dumped() }
            }
            Err(_) => ExitStatus { code: None, signal: None, core_dumped: false },
        }
    })
}
