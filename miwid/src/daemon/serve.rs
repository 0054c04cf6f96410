//! The daemon's life between its first request and its last.
//!
//! ```text
//! start:  listeners -> control -> admin -> apps -> READY
//! stop:   STOPPING -> listeners drain -> apps stop -> control closes -> logs close
//! ```

use std::{
    os::unix::process::parent_id,
    sync::Arc,
    time::{Duration, Instant},
};

use config::Config;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    backend::{self, Kernel},
    banner,
    engine::{Engine, confirm},
    fitness, notify,
    upgrade::{self, Upgrades, unheard as unheard_upgrade},
};
use crate::{
    app,
    builtin::{self, Pages},
    cli::Run,
    control::{self, Control, Course, Facts},
    link::{Mode, Order, ToWarden},
    reload::{self, Reload, Reloader},
    server::{Listeners, Prepared, Workers},
    signal::{Signal, Signals},
    snapshot::Current,
    telemetry::{self, AccessLog, Events, Logs, Metrics, Readiness},
    tls,
    upstream::Directory,
};

/// A disk that takes longer than this to look at must not keep the operator out.
const APPS_KNOWN: Duration = Duration::from_secs(5);
/// Stop signals this close together are one.
const ONE_WISH: Duration = Duration::from_millis(500);
/// Tunnels of an engine that has handed over have so long to come to an end by themselves; then they are told to go.
const LEAVE: Duration = Duration::from_secs(3600);
const FAREWELL: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(1);
/// Lines that are still on their way get this long.
const LOG_FAREWELL: Duration = Duration::from_secs(2);

pub(super) struct Daemon {
    pub run: Run,
    /// `None`: this process is all there is.
    pub engine: Option<Engine>,
    /// Something runs that this process has not begun.
    pub takes_over: bool,
    /// Opened when serving begins; what another engine still reads, later.
    pub prepared: Option<Prepared>,
    pub config: Arc<Config>,
    pub current: Current,
    /// Taken when serving begins.
    pub socket: Option<control::Socket>,
    pub events: Events,
    pub logs: Logs,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub access: AccessLog,
    pub directory: Directory,
    pub pages: Pages,
    pub workers: Arc<Workers>,
    pub listeners: Listeners,
    /// Taken when serving begins.
    pub admin: Option<tokio::net::TcpListener>,
    pub apps: app::Handle,
    pub certificates: tls::Handle,
    #[cfg(feature = "cloudflare")]
    pub edge: Arc<crate::cloudflare::Keeper>,
    pub reloader: Reloader,
    pub to_terminal: bool,
}

enum Ending {
    Stopped,
    HandedOver,
}

/// The tasks of a daemon that serves; each ends when `stop` says so, or is ended.
struct Serving {
    course: watch::Sender<Course>,
    control: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl Daemon {
    pub(super) async fn serve(mut self, mut signals: Signals) {
        let path = self.socket.as_ref().map(|it| it.path().to_owned()).unwrap_or_default();
        let (requests, asked) = mpsc::channel(8);
        if !self.takes_over {
            self.open();
            banner::print(&self.config, &self.listeners.open(), &path, self.to_terminal);
        }
        let serving = self.begin(requests);
        if self.takes_over {
            // Nobody may ask for an app before what runs of it is known.
            every_app_is_known(self.apps.clone(), self.config.clone()).await;
            self.open();
        }
        let listeners: Vec<String> = self.listeners.open().iter().map(|it| it.address.to_string()).collect();
        backend::announce(self.kernel());
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            pid = std::process::id(),
            config = %self.config.path.as_deref().map_or_else(|| "built-in".into(), |it| it.to_string_lossy()),
            control = %path.display(),
            "serving on {}",
            listeners.join(", ")
        );
        match self.until_ended(&mut signals, asked, &serving.course).await {
            Ending::Stopped => self.end(serving, &mut signals).await,
            Ending::HandedOver => self.leave(serving, &mut signals).await,
        }
    }

    fn kernel(&self) -> Kernel {
        let support = self.current.load().tls.as_ref().and_then(|it| it.kernel());
        match support {
            Some(support) => Kernel::Able(support),
            None if self.config.ssl.ktls => Kernel::Unable,
            None => Kernel::NotAsked,
        }
    }

    fn open(&mut self) {
        let prepared = self.prepared.take().unwrap_or_default();
        match &self.engine {
            Some(engine) if engine.mode == Mode::Beside => {
                let (now, quic) = prepared.split_quic();
                self.prepared = Some(quic);
                self.listeners.commit(now);
            }
            _ => {
                self.listeners.commit(prepared);
                self.listeners.drop_kept();
            }
        }
        if let Some(engine) = &self.engine {
            engine.line.say(ToWarden::Serving);
        }
    }

    fn begin(&mut self, requests: mpsc::Sender<control::Request>) -> Serving {
        let (course, followed) = watch::channel(Course::Serving);
        let mut others = vec![
            tokio::spawn(self.directory.maintain(self.events.clone(), self.metrics.clone())),
            tokio::spawn(start_apps(self.apps.clone(), self.config.clone(), self.readiness.clone())),
            tokio::spawn(keep_certificates(
                self.certificates.clone(),
                self.config.clone(),
                self.current.clone(),
                self.readiness.clone(),
            )),
            notify::start(self.readiness.clone(), self.apps.clone()),
        ];
        if let Some(engine) = &self.engine {
            others.push(tokio::spawn(engine.recent.clone().follow(self.metrics.clone())));
        }
        if let Some(engine) = self.engine.as_ref().filter(|it| it.mode == Mode::Beside) {
            let (metrics, line) = (self.metrics.clone(), engine.line.clone());
            others.push(tokio::spawn(fitness::prove(metrics, engine.before, line, confirm())));
        }
        #[cfg(feature = "cloudflare")]
        others.push(tokio::spawn(super::edge::keep(
            self.edge.clone(),
            self.reloader.clone(),
            self.events.clone(),
            self.metrics.clone(),
        )));
        others.extend(self.admin.take().map(|it| tokio::spawn(serve_admin(it, self.pages.clone(), followed.clone()))));
        let control = Control {
            app: self.apps.clone(),
            certificates: self.certificates.clone(),
            #[cfg(feature = "cloudflare")]
            edge: self.edge.clone(),
            reloader: self.reloader.clone(),
            directory: self.directory.clone(),
            current: self.current.clone(),
            events: self.events.clone(),
            logs: self.logs.clone(),
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
            requests,
            facts: Facts {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: if self.engine.is_some() { parent_id() } else { std::process::id() },
                started: self.engine.as_ref().map_or_else(Instant::now, |it| it.since),
                engine_generation: self.engine.as_ref().map_or(1, |it| it.number),
                workers: self.workers.count(),
                listeners: self.listeners.clone(),
                io_backend: backend::ACTIVE.to_owned(),
            },
        };
        let known = every_app_is_known(self.apps.clone(), self.config.clone());
        let socket = self.socket.take();
        let control = tokio::spawn(async move {
            let Some(socket) = socket else { return };
            known.await;
            if let Err(error) = control.serve(socket, followed).await {
                tracing::error!(%error, "the control plane ended");
            }
        });
        Serving { course, control, others }
    }

    async fn until_ended(
        &mut self,
        signals: &mut Signals,
        mut asked: mpsc::Receiver<control::Request>,
        course: &watch::Sender<Course>,
    ) -> Ending {
        let mut upgrades = Upgrades::new(self.run.clone(), self.engine.as_ref().map(|it| it.line.clone()));
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => return Ending::Stopped,
                    Signal::Reload => drop(tokio::spawn(reload(self.reloader.clone()))),
                    Signal::Reopen => reopen(self.logs.clone()),
                    Signal::Upgrade => upgrades.begin(unheard_upgrade(), &self.apps.statuses()),
                },
                request = asked.recv() => match request {
                    Some(control::Request::Shutdown) | None => return Ending::Stopped,
                    Some(control::Request::Upgrade(upgrade)) => upgrades.begin(upgrade, &self.apps.statuses()),
                },
                examined = upgrades.examined() => upgrades.go_on(examined),
                order = next_order(&mut self.engine) => {
                    if let Some(ending) = self.obey(order, &mut upgrades, course).await {
                        return ending;
                    }
                }
            }
        }
    }

    /// What the warden says.
    async fn obey(&mut self, order: Order, upgrades: &mut Upgrades, course: &watch::Sender<Course>) -> Option<Ending> {
        match order {
            Order::Go(_) => {}
            Order::Pause => {
                tracing::info!("another engine takes over");
                course.send_replace(Course::Paused);
                self.listeners.pause();
                self.apps.let_go().await;
                let total = fitness::answers(&self.metrics);
                self.engine.as_ref().inspect(|it| it.line.say(ToWarden::Paused { answers: it.recent.until(total) }));
            }
            Order::Resume(kept) => {
                tracing::warn!("the other engine has failed: this one goes on");
                self.listeners.resume(kept);
                self.apps.take_back().await;
                course.send_replace(Course::Serving);
            }
            Order::Drain => return Some(Ending::HandedOver),
            Order::TakeQuic => {
                self.listeners.commit(self.prepared.take().unwrap_or_default());
                self.listeners.drop_kept();
            }
            Order::Upgrading(line) => upgrades.say(line),
            Order::Upgraded(engine) => upgrades.end(Ok(format!("engine {engine} serves"))),
            Order::NotUpgraded { why, busy: false } => upgrades.end(Err(upgrade::refused(why))),
            Order::NotUpgraded { why, busy: true } => upgrades.end(Err(upgrade::busy(why, "miwictl op list"))),
            Order::Alone => {
                tracing::error!("the warden has gone: nothing would look after the apps");
                return Some(Ending::Stopped);
            }
        }
        None
    }

    /// Another engine has everything: what is under way here is finished, and nothing else is touched.
    async fn leave(self, serving: Serving, signals: &mut Signals) {
        tracing::info!("finishing what is under way");
        serving.others.iter().for_each(JoinHandle::abort);
        serving.course.send_replace(Course::Leaving);
        self.listeners.leave_quic();
        let ending = async {
            if !self.workers.finished(LEAVE).await {
                tracing::info!("tunnels of the engine before are closed now");
                self.workers.drain(FAREWELL).await;
            }
        };
        tokio::select! {
            // Who asked for the upgrade still reads the answer.
            _ = async { tokio::join!(ending, tokio::time::sleep(ANSWER)) } => {}
            () = stop_asked(signals) => {
                self.workers.drain(self.reloader.config().server.shutdown_timeout).await;
            }
        }
        serving.course.send_replace(Course::HandedOver);
        let _ = tokio::time::timeout(LOG_FAREWELL, serving.control).await;
        self.access.close(LOG_FAREWELL);
        tracing::info!("left");
        telemetry::flush();
    }

    async fn end(self, serving: Serving, signals: &mut Signals) {
        self.readiness.draining();
        notify::stopping();
        tracing::info!("stopping");
        self.listeners.release();
        let deadline = self.reloader.config().server.shutdown_timeout;
        let ending = async {
            if !self.workers.drain(deadline).await {
                tracing::warn!(seconds = deadline.as_secs(), "connections were cut: shutdown_timeout is over");
            }
            self.apps.shutdown(deadline).await;
        };
        tokio::select! {
            () = ending => {}
            () = second_stop(signals) => {
                tracing::warn!("stopping at once");
                self.apps.shutdown(Duration::ZERO).await;
            }
        }
        // While it is paused, the socket is the other engine's.
        serving
            .course
            .send_modify(|it| *it = if *it == Course::Paused { Course::HandedOver } else { Course::Stopping });
        serving.others.iter().for_each(JoinHandle::abort);
        let _ = tokio::time::timeout(LOG_FAREWELL, serving.control).await;
        self.access.close(LOG_FAREWELL);
        tracing::info!("stopped");
        telemetry::flush();
    }
}

async fn serve_admin(listener: tokio::net::TcpListener, pages: Pages, course: watch::Receiver<Course>) {
    if let Err(error) = builtin::serve(listener, pages, Course::ended(course)).await {
        tracing::error!(%error, "the admin listener ended");
    }
}

/// The supervisor reads the disk before it knows its apps. A command that comes earlier waits in the socket's backlog
/// rather than hear that there is no such app.
async fn every_app_is_known(apps: app::Handle, config: Arc<Config>) {
    let count = config.backends.values().filter(|it| it.process.is_some()).count();
    let mut statuses = apps.watch();
    let _ = tokio::time::timeout(APPS_KNOWN, statuses.wait_for(|it| it.len() >= count)).await;
}

/// The daemon is ready when every app has come up or has said why not.
async fn start_apps(apps: app::Handle, config: Arc<Config>, readiness: Readiness) {
    // Nobody follows the first start: what happens is in the events, and so in the log.
    let (progress, _) = mpsc::unbounded_channel();
    apps.converge(config, progress).await;
    readiness.started();
}

/// Whatever is shown next, readiness says whether it is only a stand-in.
async fn keep_certificates(keeper: tls::Handle, config: Arc<Config>, current: Current, readiness: Readiness) {
    let mut shown = keeper.watch();
    keeper.converge(config).await;
    while shown.changed().await.is_ok() {
        reload::tell_stand_ins(&current.load(), &readiness);
    }
}

async fn reload(reloader: Reloader) {
    notify::reloading();
    let report = reloader.reload(Reload::default()).await;
    notify::reloaded();
    tracing::info!(result = report.outcome.as_str(), generation = report.config_generation, "reload");
}

fn reopen(logs: Logs) {
    tokio::task::spawn_blocking(move || match logs.reopen() {
        Ok(()) => tracing::info!("logs reopened"),
        Err(error) => tracing::error!(%error, "cannot reopen a log"),
    });
}

/// Never, where there is no warden.
async fn next_order(engine: &mut Option<Engine>) -> Order {
    match engine {
        Some(engine) => engine.orders.recv().await.unwrap_or(Order::Alone),
        None => std::future::pending().await,
    }
}

async fn stop_asked(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}

/// A signal to a process and to its group arrives twice (`timeout` sends both): that is one wish, not two.
async fn second_stop(signals: &mut Signals) {
    let first = Instant::now();
    while signals.next().await != Signal::Stop || first.elapsed() < ONE_WISH {}
}
