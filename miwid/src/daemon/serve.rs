//! The daemon's life between its first request and its last.
//!
//! ```text
//! start:  listeners -> control -> admin -> apps -> READY
//! stop:   STOPPING -> listeners drain -> apps stop -> control closes -> logs close
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use config::Config;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{banner, notify};
use crate::{
    app,
    builtin::{self, Pages},
    control::{self, Control, Facts},
    reload::{self, Reload, Reloader},
    server::{Listeners, Workers},
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
/// Lines that are still on their way get this long.
const LOG_FAREWELL: Duration = Duration::from_secs(2);

pub(super) struct Daemon {
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

/// The tasks of a daemon that serves; each ends when `stop` says so, or is ended.
struct Serving {
    stop: watch::Sender<bool>,
    control: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl Daemon {
    pub(super) async fn serve(mut self, mut signals: Signals) {
        let path = self.socket.as_ref().map(|it| it.path().to_owned()).unwrap_or_default();
        banner::print(&self.config, &self.listeners.open(), &path, self.to_terminal);
        let (requests, mut asked) = mpsc::channel(8);
        let serving = self.begin(requests);
        let listeners: Vec<String> = self.listeners.open().iter().map(|it| it.address.to_string()).collect();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            pid = std::process::id(),
            config = %self.config.path.as_deref().map_or_else(|| "built-in".into(), |it| it.to_string_lossy()),
            control = %path.display(),
            "serving on {}",
            listeners.join(", ")
        );
        self.until_stopped(&mut signals, &mut asked).await;
        self.end(serving, &mut signals).await;
    }

    fn begin(&mut self, requests: mpsc::Sender<control::Request>) -> Serving {
        let (stop, stopped) = watch::channel(false);
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
        #[cfg(feature = "cloudflare")]
        others.push(tokio::spawn(super::edge::keep(self.edge.clone(), self.reloader.clone(), self.events.clone())));
        others.extend(self.admin.take().map(|it| tokio::spawn(serve_admin(it, self.pages.clone(), stopped.clone()))));
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
                started: Instant::now(),
                engine_generation: 1,
                workers: self.workers.count(),
                listeners: self.listeners.clone(),
                io_backend: "epoll".to_owned(),
            },
        };
        let known = every_app_is_known(self.apps.clone(), self.config.clone());
        let socket = self.socket.take();
        let control = tokio::spawn(async move {
            let Some(socket) = socket else { return };
            known.await;
            if let Err(error) = control.serve(socket, stopped).await {
                tracing::error!(%error, "the control plane ended");
            }
        });
        Serving { stop, control, others }
    }

    async fn until_stopped(&self, signals: &mut Signals, asked: &mut mpsc::Receiver<control::Request>) {
        loop {
            let signal = tokio::select! {
                signal = signals.next() => signal,
                request = asked.recv() => match request {
                    Some(control::Request::Shutdown) | None => Signal::Stop,
                },
            };
            match signal {
                Signal::Stop => return,
                Signal::Reload => drop(tokio::spawn(reload(self.reloader.clone()))),
                Signal::Reopen => reopen(self.logs.clone()),
                Signal::Upgrade => tracing::warn!("upgrade is not available in this version"),
            }
        }
    }

    async fn end(self, serving: Serving, signals: &mut Signals) {
        self.readiness.draining();
        notify::stopping();
        tracing::info!("stopping");
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
        serving.stop.send_replace(true);
        serving.others.iter().for_each(JoinHandle::abort);
        let _ = tokio::time::timeout(LOG_FAREWELL, serving.control).await;
        self.access.close(LOG_FAREWELL);
        tracing::info!("stopped");
        telemetry::flush();
    }
}

async fn serve_admin(listener: tokio::net::TcpListener, pages: Pages, mut stopped: watch::Receiver<bool>) {
    let stop = async move {
        let _ = stopped.wait_for(|it| *it).await;
    };
    if let Err(error) = builtin::serve(listener, pages, stop).await {
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

/// A signal to a process and to its group arrives twice (`timeout` sends both): that is one wish, not two.
async fn second_stop(signals: &mut Signals) {
    let first = Instant::now();
    while signals.next().await != Signal::Stop || first.elapsed() < ONE_WISH {}
}
