//! From a command line to a daemon that serves, or to an exit code that says why not.

use std::{
    fmt,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use config::{Config, Problem, Severity};

use super::{limits, serve::Daemon};
use crate::{
    app,
    builtin::Pages,
    cli::Run,
    control,
    net::{Admission, BindError},
    reload::{self, Parts, Reloader, Source},
    server::{Listeners, Shared, Workers, addresses},
    signal::Signals,
    snapshot::{Current, Lasting, build, capabilities},
    telemetry::{self, AccessLog, Events, Logs, Metrics, Readiness},
    tls::Tls,
    upstream::Address,
};

pub(super) const INVALID: u8 = 6;
const TAKEN: u8 = 8;
/// The control plane waits far more than it works: two threads let one block for a moment without stalling the other.
const CONTROL_THREADS: usize = 2;

/// `miwid run`.
pub fn run(run: &Run) -> ExitCode {
    match start(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.code())
        }
    }
}

#[derive(Debug)]
pub(super) enum StartError {
    Config(Vec<Problem>),
    Refused(String),
    /// With what to write to listen elsewhere.
    Bind(BindError, String),
    Control(control::Error),
    Io(&'static str, io::Error),
}

impl StartError {
    fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Refused(_) => INVALID,
            Self::Bind(..) => TAKEN,
            Self::Control(control::Error::Taken { .. }) => TAKEN,
            Self::Control(_) | Self::Io(..) => 1,
        }
    }

    fn print(&self) {
        match self {
            Self::Config(problems) => super::check::print(problems),
            other => eprintln!("error: {other}"),
        }
        if let Self::Control(control::Error::Taken { .. }) = self {
            eprintln!("hint: stop it with `miwictl shutdown`, or give this one a socket of its own: --socket PATH");
        }
        if let Self::Bind(BindError { address, source }, elsewhere) = self {
            if source.kind() == io::ErrorKind::AddrInUse {
                eprintln!("{}", who_has(*address));
            }
            eprintln!("hint: choose another port: miwid --set {elsewhere}");
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(_) => f.write_str("the configuration is invalid"),
            Self::Refused(why) => f.write_str(why),
            Self::Bind(error, _) => write!(f, "{error}: {}", error.source),
            Self::Control(error) => match std::error::Error::source(error) {
                Some(source) => write!(f, "{error}: {source}"),
                None => error.fmt(f),
            },
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

fn who_has(address: std::net::SocketAddr) -> String {
    match app::sockets::owner(&Address::Tcp(address)) {
        Some(owner) => format!("  {address} belongs to pid {} \"{}\" (user {})", owner.pid, owner.command, owner.user),
        None => format!("  another process has {address}; `ss -ltunp` as root shows which"),
    }
}

/// A listener that could not be bound, with the setting that moves it.
fn taken(error: BindError, server: &config::Server) -> StartError {
    let port = error.address.port().checked_add(1000).unwrap_or(8080);
    let elsewhere = if error.address.port() == server.http_port {
        format!("server.http_port={port}")
    } else if error.address.port() == server.https_port {
        format!("server.https_port={port}")
    } else {
        format!("admin.listen={}", std::net::SocketAddr::new(error.address.ip(), port))
    };
    StartError::Bind(error, elsewhere)
}

fn start(run: &Run) -> Result<(), StartError> {
    let source = Source::find(run.config.clone(), run.set.clone()).map_err(|it| StartError::Refused(it.to_string()))?;
    let loaded = source.load(&capabilities()).map_err(StartError::Config)?;
    let config = Arc::new(loaded.config);
    let connections_max = limits::connections(config.server.max_connections).map_err(StartError::Refused)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("miwid-control")
        .enable_all()
        .build()
        .map_err(|error| StartError::Io("cannot start the control runtime", error))?;
    runtime.block_on(async {
        let signals = Signals::install().map_err(|error| StartError::Io("cannot listen for signals", error))?;
        let daemon = assemble(run, source, config, connections_max).await?;
        let roots = super::check::roots(&daemon.config);
        let tls = daemon.current.load().tls.clone();
        let certificates = tls.iter().flat_map(|it| it.warnings());
        for warning in
            loaded.warnings.iter().chain(&roots).chain(certificates).filter(|it| it.severity == Severity::Warning)
        {
            tracing::warn!("{}", warning.render(None, false).trim_end());
        }
        daemon.serve(signals).await;
        Ok(())
    })?;
    // Readers of a pipe that nobody closes may still be blocked in threads of the runtime.
    runtime.shutdown_background();
    Ok(())
}

/// Builds every room's part, ground floor first. Nothing serves before all of it could be built.
async fn assemble(
    run: &Run,
    source: Source,
    config: Arc<Config>,
    connections_max: usize,
) -> Result<Daemon, StartError> {
    let configured = run.socket.clone().or_else(|| config.control.socket.clone());
    let place = control::Place::of_process(configured, config.control.group.clone());
    let socket = control::Socket::bind(&place).map_err(StartError::Control)?;

    let (events, metrics, readiness) = (Events::default(), Metrics::default(), Readiness::default());
    let (logs, access) = open_logs(&config.logging, &events, &metrics)?;
    let lasting = Lasting::default();
    let directory = lasting.directory.clone();
    #[cfg(feature = "cloudflare")]
    let edge = crate::cloudflare::Keeper::open(
        lasting.edge.clone(),
        state_dir(&config, socket.path()).join("cloudflare/ips.json"),
    );
    let tls = Tls::new(storage(&config, socket.path()));
    // What the store has is shown from the first handshake on.
    let certificates = tls.keep(events.clone(), metrics.clone());
    let snapshot = build(&config, 1, &lasting, tls.terminator(&config)).map_err(StartError::Config)?;
    reload::tell_stand_ins(&snapshot, &readiness);
    let current = Current::new(snapshot);
    let pages = Pages::new(readiness.clone(), metrics.clone());
    let shared = Shared {
        current: current.clone(),
        directory: directory.clone(),
        access: access.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        pages: pages.clone(),
        admission: Admission::new(connections_max),
    };
    let count = limits::workers(config.server.workers);
    let workers = Workers::start(count, &shared).map_err(|error| StartError::Io("cannot start a worker", error))?;
    let workers = Arc::new(workers);
    let listeners = Listeners::new(workers.clone());
    let prepared =
        listeners.prepare(&addresses(&config)).map_err(|mut errors| taken(errors.remove(0), &config.server))?;
    let admin = admin(&config).await?;

    let apps = app::Supervisor {
        directory: directory.clone(),
        events: events.clone(),
        logs: logs.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        state_dir: state_dir(&config, socket.path()),
        run_dir: run_dir(socket.path()),
    }
    .start();
    super::gauges::register(&metrics, apps.clone(), directory.clone(), current.clone(), certificates.clone());
    let reloader = Reloader::new(Parts {
        source,
        config: config.clone(),
        current: current.clone(),
        lasting,
        tls,
        certificates: certificates.clone(),
        listeners: listeners.clone(),
        apps: apps.clone(),
        readiness: readiness.clone(),
        access: access.clone(),
        events: events.clone(),
        logs: logs.clone(),
        metrics: metrics.clone(),
    });
    listeners.commit(prepared);
    Ok(Daemon {
        config,
        current,
        socket: Some(socket),
        events,
        logs,
        metrics,
        readiness,
        access,
        directory,
        pages,
        workers,
        listeners,
        admin,
        apps,
        certificates,
        #[cfg(feature = "cloudflare")]
        edge,
        reloader,
        to_terminal: io::stderr().is_terminal(),
    })
}

/// From here on what is said goes where the configuration wants it.
fn open_logs(logging: &config::Logging, events: &Events, metrics: &Metrics) -> Result<(Logs, AccessLog), StartError> {
    let logs = Logs::default();
    logs.announce_to(events);
    let own = telemetry::init(Some(logging)).map_err(|error| StartError::Io("cannot open the error log", error))?;
    if let Some(file) = own {
        logs.register("error", file);
    }
    let access = AccessLog::open(logging, &logs, metrics);
    Ok((logs, access.map_err(|error| StartError::Io("cannot open the access log", error))?))
}

async fn admin(config: &Config) -> Result<Option<tokio::net::TcpListener>, StartError> {
    let Some(address) = config.admin.listen else { return Ok(None) };
    match tokio::net::TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) => Err(taken(BindError { address, source }, &config.server)),
    }
}

/// What must survive a restart: overrides of operators. As root `/var/lib/miwid`, else beside the control socket.
fn state_dir(config: &Config, socket: &std::path::Path) -> PathBuf {
    match &config.server.state_dir {
        Some(path) => path.clone(),
        None if socket.starts_with("/run/miwid") => PathBuf::from("/var/lib/miwid"),
        None => run_dir(socket).join("state"),
    }
}

/// Where certificates and their keys are kept.
fn storage(config: &Config, socket: &std::path::Path) -> PathBuf {
    config.ssl.storage.clone().unwrap_or_else(|| state_dir(config, socket).join("certificates"))
}

/// What lives as long as the daemon: sockets of apps.
fn run_dir(socket: &std::path::Path) -> PathBuf {
    socket.parent().map_or_else(|| PathBuf::from("/tmp"), std::path::Path::to_path_buf)
}
