//! From a command line to a daemon that serves, or to an exit code that says why not.

use std::{
    fmt,
    io::{self, IsTerminal},
    net::TcpListener,
    os::fd::OwnedFd,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use config::{Config, Problem, Severity};

use super::{engine::Engine, limits, serve::Daemon};
use crate::{
    app,
    builtin::Pages,
    cli::Run,
    control,
    link::{self, Beginning, Identity, Instead, Kept, Line, Mode, Takeover, ToWarden},
    net::{Admission, BindError},
    reload::{self, Parts, Reloader, Source},
    server::{Listeners, Prepared, Shared, Workers, addresses},
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

/// `miwid run` without a warden.
pub fn run(run: &Run) -> ExitCode {
    exit(start(run, None))
}

/// The same as an engine, with the link to the warden as fd 0.
pub fn run_engine(run: &Run) -> ExitCode {
    // What it is called where processes are listed, whatever file it was started from.
    let _ = rustix::thread::set_name(c"miwid-engine");
    // Before anything is read, and while there is one thread.
    if let Err(error) = Identity::of_environment().and_then(|it| it.map_or(Ok(()), |it| it.take_on(true))) {
        return exit(Err(StartError::Io("cannot become the account of `[server] user`", error)));
    }
    let link = link::begin().map_err(|error| StartError::Io("there is no link to a warden", error));
    exit(link.and_then(|link| start(run, Some(link))))
}

fn exit(ended: Result<(), StartError>) -> ExitCode {
    match ended {
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
            // Starting again would not help.
            Self::Config(_) | Self::Refused(_) | Self::Control(control::Error::Directory(_)) => INVALID,
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
        if let Self::Control(control::Error::Directory(directory)) = self {
            let directory = directory.display();
            eprintln!(
                "hint: look what is in {directory}; if it is what `[server] user` left, stop all daemons and give it back: \
                 chown root {directory} /var/lib/miwid /var/log/miwid"
            );
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

fn start(run: &Run, link: Option<OwnedFd>) -> Result<(), StartError> {
    let source = Source::find(run.config.clone(), run.set.clone()).map_err(|it| StartError::Refused(it.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("miwid-control")
        .enable_all()
        .build()
        .map_err(|error| StartError::Io("cannot start the control runtime", error))?;
    runtime.block_on(async {
        let signals = Signals::install().map_err(|error| StartError::Io("cannot listen for signals", error))?;
        let mut beginning = match link {
            Some(link) => Some(Line::begin(link).await.map_err(|error| StartError::Io("the warden is silent", error))?),
            None => None,
        };
        let (loaded, instead) = load(&source, beginning.as_mut())?;
        let number = beginning.as_ref().map(|it| it.engine);
        super::identity::judge(&loaded.config, number).map_err(|it| StartError::Refused(it.to_string()))?;
        let config = Arc::new(loaded.config);
        let connections_max = limits::connections(config.server.max_connections).map_err(StartError::Refused)?;
        let daemon = assemble(run, source, config, connections_max, beginning).await?;
        if let Some(why) = instead {
            tracing::warn!("{why}; `miwictl reload` goes back to the files");
        }
        let mut absent = super::check::roots(&daemon.config);
        absent.extend(super::check::accounts(&daemon.config));
        let tls = daemon.current.load().tls.clone();
        let certificates = tls.iter().flat_map(|it| it.warnings());
        for warning in
            loaded.warnings.iter().chain(&absent).chain(certificates).filter(|it| it.severity == Severity::Warning)
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

/// What the files say, or what the warden wants instead, and why.
fn load(source: &Source, beginning: Option<&mut Beginning>) -> Result<(config::Loaded, Option<String>), StartError> {
    let Some(beginning) = beginning else {
        return source.load(&capabilities()).map(|it| (it, None)).map_err(StartError::Config);
    };
    let (loaded, why) = match beginning.instead.take() {
        Some(Instead { why, texts }) => {
            (config::load_texts(&config::Texts(texts), &source.overrides, &capabilities()), Some(why))
        }
        None => (source.load(&capabilities()), None),
    };
    let loaded = loaded.map_err(StartError::Config)?;
    // The built-in default needs nobody who remembers it.
    if loaded.config.path.is_some() {
        beginning.line.configured(&loaded.texts.0, false);
    }
    Ok((loaded, why))
}

/// Builds every room's part, ground floor first. Nothing serves before all of it could be built.
async fn assemble(
    run: &Run,
    source: Source,
    config: Arc<Config>,
    connections_max: usize,
    beginning: Option<Beginning>,
) -> Result<Daemon, StartError> {
    let (mut engine, mut kept) = Engine::of(beginning);
    let configured = run.socket.clone().or_else(|| config.control.socket.clone());
    let place = control::Place::of_process(configured, config.control.group.clone());
    let socket = control_socket(&place, engine.as_ref(), &mut kept)?;

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
    let Doors { workers, admin, listeners, prepared } = doors(&config, &shared, engine.as_ref(), kept)?;
    let takeover = match &mut engine {
        Some(engine) => engine.wait_until_told().await?,
        None => Takeover::default(),
    };
    if let Some(engine) = &engine {
        let line = engine.line.clone();
        tls.inherit(&takeover.secrets, move |keys| line.entrust(keys));
    }
    let takes_over = engine.as_ref().is_some_and(|it| it.mode == Mode::Beside) || !takeover.instances.is_empty();

    let supervisor = app::Supervisor {
        directory: directory.clone(),
        events: events.clone(),
        logs: logs.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        state_dir: state_dir(&config, socket.path()),
        run_dir: run_dir(socket.path()),
    };
    let apps = match &engine {
        Some(engine) => supervisor.start_under(engine.line.clone(), app::Inheritance::of(takeover)),
        None => supervisor.start(),
    };
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
        warden: engine.as_ref().map(|it| it.line.clone()),
    });
    Ok(Daemon {
        run: run.clone(),
        engine,
        takes_over,
        prepared: Some(prepared),
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

/// Where requests come in, and who answers them. Nothing is open yet.
struct Doors {
    workers: Arc<Workers>,
    admin: Option<tokio::net::TcpListener>,
    listeners: Listeners,
    prepared: Prepared,
}

/// Those of the engine before are used again.
fn doors(config: &Config, shared: &Shared, engine: Option<&Engine>, mut kept: Kept) -> Result<Doors, StartError> {
    let count = limits::workers(config.server.workers);
    let workers = Workers::start(count, shared).map_err(|error| StartError::Io("cannot start a worker", error))?;
    let workers = Arc::new(workers);
    let admin = admin(config, engine, &mut kept)?;
    let mut listeners = Listeners::new(workers.clone());
    if let Some(engine) = engine {
        listeners = listeners.kept_by(engine.line.clone(), kept);
    }
    let prepared =
        listeners.prepare(&addresses(config)).map_err(|mut errors| taken(errors.remove(0), &config.server))?;
    Ok(Doors { workers, admin, listeners, prepared })
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

/// That of the engine before, if there was one at this place.
fn control_socket(
    place: &control::Place,
    engine: Option<&Engine>,
    kept: &mut Kept,
) -> Result<control::Socket, StartError> {
    let key = format!("control:{}", control::choose(place).display());
    let before = kept.remove(&key).and_then(|sockets| sockets.into_iter().next());
    if let Some(socket) = before.and_then(|socket| control::Socket::adopt(place, socket).ok()) {
        return Ok(socket);
    }
    let socket = control::Socket::bind(place).map_err(StartError::Control)?;
    if let Some(engine) = engine {
        engine.line.say(ToWarden::Drop { key: key.clone(), ending: false });
        engine.line.keep(&key, socket.try_clone().into_iter().collect());
    }
    Ok(socket)
}

fn admin(
    config: &Config,
    engine: Option<&Engine>,
    kept: &mut Kept,
) -> Result<Option<tokio::net::TcpListener>, StartError> {
    let Some(address) = config.admin.listen else { return Ok(None) };
    let key = format!("admin:{address}");
    // A service manager that passes a socket does not say what for.
    let passed = format!("tcp:{address}");
    let before = kept.remove(&key).into_iter().chain(kept.remove(&passed)).flatten().next();
    let failed = |source| taken(BindError { address, source }, &config.server);
    let bound = match before {
        Some(socket) => TcpListener::from(socket),
        None => TcpListener::bind(address).map_err(failed)?,
    };
    if let Some(engine) = engine {
        for key in [&key, &passed] {
            engine.line.say(ToWarden::Drop { key: key.clone(), ending: false });
        }
        engine.line.keep(&key, bound.try_clone().map(OwnedFd::from).into_iter().collect());
    }
    bound.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(bound)).map(Some).map_err(failed)
}

/// What must survive a restart: overrides of operators. As root `/var/lib/miwid`, else beside the control socket.
pub(super) fn state_dir(config: &Config, socket: &std::path::Path) -> PathBuf {
    match &config.server.state_dir {
        Some(path) => path.clone(),
        None if socket.starts_with("/run/miwid") => PathBuf::from("/var/lib/miwid"),
        None => run_dir(socket).join("state"),
    }
}

/// Where certificates and their keys are kept.
pub(super) fn storage(config: &Config, socket: &std::path::Path) -> PathBuf {
    config.ssl.storage.clone().unwrap_or_else(|| state_dir(config, socket).join("certificates"))
}

/// What lives as long as the daemon: sockets of apps.
pub(super) fn run_dir(socket: &std::path::Path) -> PathBuf {
    socket.parent().map_or_else(|| PathBuf::from("/tmp"), std::path::Path::to_path_buf)
}
