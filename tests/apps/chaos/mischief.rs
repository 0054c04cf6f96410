//! What the flags do besides serving: signals, children that stay, noise on standard output, leaks.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Command, ExitCode, Stdio, exit},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
};

use crate::{
    options::{Options, Role, Where},
    routes::{self, App},
};

/// A leak stops here: the tests share their machine.
const LEAK_MAX: usize = 256 << 20;

/// A bound listener of either kind.
pub(crate) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listening {
    pub(crate) async fn open(place: &Where) -> io::Result<Self> {
        match place {
            Where::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            // A stale socket file is an error on purpose: that is how node behaves.
            Where::Unix(path) => UnixListener::bind(path).map(Self::Unix),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }

    fn descriptor(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(listener) => listener.as_fd().try_clone_to_owned(),
        }
    }
}

/// Appends a line to a file that a test reads.
pub(crate) fn append(path: Option<&Path>, line: &str) {
    let Some(path) = path else { return };
    if let Ok(mut file) = File::options().create(true).append(true).open(path) {
        let _ = writeln!(file, "{line}");
    }
}

/// Takes SIGTERM if a flag says so; otherwise the signal kills, as it does to a naive app.
pub(crate) fn heed_signals(options: &Options) {
    if !options.ignore_term && options.sigterm_exit.is_none() && options.term_file.is_none() {
        return;
    }
    let Ok(mut terms) = signal(SignalKind::terminate()) else { return };
    let (ignore, code, file) = (options.ignore_term, options.sigterm_exit, options.term_file.clone());
    tokio::spawn(async move {
        while terms.recv().await.is_some() {
            append(file.as_deref(), "SIGTERM");
            eprintln!("chaos-app: got SIGTERM");
            if !ignore {
                exit(i32::from(code.unwrap_or(0)));
            }
        }
    });
}

/// Starts whatever the flags ask for beside serving.
pub(crate) fn make_noise(options: &Options) {
    if let Some(rate) = options.log_flood {
        let until = Instant::now() + Duration::from_millis(options.log_flood_for);
        thread::spawn(move || flood(rate, until));
    }
    if options.log_lines > 0 {
        for number in 0..options.log_writers {
            let (lines, bytes) = (options.log_lines.to_string(), options.log_line_bytes.to_string());
            let _ = child(Role::Writer, number, &["--log-lines", &lines, "--log-line-bytes", &bytes]).spawn();
        }
    }
    if let Some(rate) = options.leak {
        thread::spawn(move || leak(rate));
    }
    if options.orphans > 0 {
        let each_second = options.orphans;
        thread::spawn(move || orphan(each_second));
    }
    if let Some(linger) = options.hold_stdout {
        let _ = child(Role::Lingerer, 0, &["--ready-after", &linger.to_string()]).spawn();
    }
}

/// Numbered lines of 100 bytes, so that a reader can tell what is missing.
fn flood(rate: u64, until: Instant) {
    let mut out = io::stdout();
    let begun = Instant::now();
    let mut number = 0_u64;
    while Instant::now() < until {
        let allowed = if rate == 0 { u64::MAX } else { (begun.elapsed().as_secs_f64() * rate as f64) as u64 };
        if number.saturating_mul(100) >= allowed {
            thread::sleep(Duration::from_millis(2));
            continue;
        }
        let mut block = String::with_capacity(6400);
        for _ in 0..64 {
            block.push_str(&format!("flood {number:012} {}\n", "x".repeat(80)));
            number += 1;
        }
        if out.write_all(block.as_bytes()).is_err() {
            return;
        }
    }
    let _ = writeln!(out, "flood ended after {number} lines");
}

fn leak(rate: usize) {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    while kept.iter().map(Vec::len).sum::<usize>() < LEAK_MAX {
        kept.push(vec![1; rate / 10]);
        thread::sleep(Duration::from_millis(100));
    }
    thread::park();
}

fn orphan(each_second: u32) {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        // The shell leaves before its child does: the child is nobody's.
        let script = format!("i=0; while [ $i -lt {each_second} ]; do (true &) ; i=$((i+1)); done");
        let _ = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).status();
        thread::sleep(Duration::from_secs(1));
    }
}

fn child(role: Role, number: u32, more: &[&str]) -> Command {
    use clap::ValueEnum;
    let name = role.to_possible_value().map(|it| it.get_name().to_owned()).unwrap_or_default();
    let mut command = Command::new("/proc/self/exe");
    command.args(["--role", &name, "--number", &number.to_string()]).args(more).stdin(Stdio::null());
    command
}

/// Hands the listener to a child and leaves, as a daemon of the old school does.
pub(crate) fn leave_a_child(listening: &Listening, place: &Where) -> ExitCode {
    let listen = place.to_string();
    let given = listening.descriptor().and_then(|it| child(Role::Server, 0, &["--listen", &listen]).stdin(it).spawn());
    if given.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Leaves a child that holds the port and cannot be asked to go.
pub(crate) fn leave_a_holder(listening: &Listening) {
    let _ = listening.descriptor().and_then(|it| child(Role::Holder, 0, &[]).stdin(it).spawn());
}

/// A child's life.
pub(crate) fn play(role: Role, options: &Options) -> ExitCode {
    match role {
        Role::Writer => write_lines(options),
        Role::Lingerer => thread::sleep(Duration::from_millis(options.ready_after)),
        Role::Holder | Role::Server => {
            let _ = nix::unistd::setsid();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let Ok(runtime) = runtime else { return ExitCode::FAILURE };
            runtime.block_on(hold_or_serve(role, options));
        }
    }
    ExitCode::SUCCESS
}

async fn hold_or_serve(role: Role, options: &Options) {
    if let Role::Holder = role {
        let stubborn = Options { ignore_term: true, ..options.clone() };
        heed_signals(&stubborn);
        return std::future::pending().await;
    }
    let Ok(descriptor) = io::stdin().as_fd().try_clone_to_owned() else { return };
    let listening = if options.listen.starts_with("unix:") {
        UnixListener::from_std(descriptor.into()).map(Listening::Unix)
    } else {
        TcpListener::from_std(descriptor.into()).map(Listening::Tcp)
    };
    let Ok(listening) = listening else { return };
    let app = std::sync::Arc::new(App::new(options.clone()));
    loop {
        let Ok(stream) = listening.accept().await else { continue };
        tokio::spawn(routes::serve_connection(stream, app.clone()));
    }
}

/// Each line in one write of its own: what stays whole in the log was whole in the pipe.
fn write_lines(options: &Options) {
    let mut out = io::stdout();
    for line in 0..options.log_lines {
        let head = format!("w{} {line:08} ", options.number);
        let fill = options.log_line_bytes.saturating_sub(head.len() + 1);
        let mark = char::from(b'a' + u8::try_from(options.number % 26).unwrap_or(0));
        let text = format!("{head}{}\n", mark.to_string().repeat(fill));
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
