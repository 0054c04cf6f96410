//! What the control plane holds: handles to the rooms it speaks for. Everything here is cheap to share; nothing here is
//! state of its own except the operations.

use std::{
    path::PathBuf,
    time::{Instant, SystemTime},
};

use proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use super::{
    Ending, Operations, Order,
    access::{Denial, Peer, Right, Standing},
    audit::Caller,
    convert,
};
use crate::{
    app::Handle,
    reload::Reloader,
    server::Listeners,
    snapshot::Current,
    telemetry::{Events, Logs, Metrics, Readiness},
    tls,
    upstream::Directory,
};

/// What only the roof can do.
pub enum Request {
    /// Drain and stop.
    Shutdown,
    Upgrade(Upgrade),
}

/// Another program is to go on with everything.
pub struct Upgrade {
    /// Absent: what now lies where this one was started from.
    pub binary: Option<PathBuf>,
    pub progress: mpsc::UnboundedSender<String>,
    pub reply: oneshot::Sender<Result<String, NoUpgrade>>,
}

/// Why there is no upgrade, with the exit code of `miwictl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoUpgrade {
    pub exit: i32,
    pub message: String,
    pub hint: String,
}

/// What a daemon is on its way to, for the parts that must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    Serving,
    /// Another engine answers; what has been asked here is answered here.
    Paused,
    /// It will go on doing so: connections end with what they have begun, and whoever asks more connects to the other.
    Leaving,
    /// The end; the socket stays, since it is another engine's.
    HandedOver,
    Stopping,
}

impl Course {
    /// Waits until there is no way back to serving.
    pub async fn ended(mut course: watch::Receiver<Self>) {
        let _ = course.wait_for(|it| !matches!(it, Self::Serving | Self::Paused)).await;
    }
}

/// What the daemon knows of itself.
#[derive(Clone)]
pub struct Facts {
    pub version: String,
    /// The one that operators know: the warden's, where there is one.
    pub pid: u32,
    pub started: Instant,
    pub engine_generation: u64,
    pub workers: usize,
    pub listeners: Listeners,
    /// `epoll` or `io_uring`.
    pub io_backend: String,
}

pub struct Control {
    pub app: Handle,
    pub certificates: tls::Handle,
    #[cfg(feature = "cloudflare")]
    pub edge: std::sync::Arc<crate::cloudflare::Keeper>,
    pub reloader: Reloader,
    pub directory: Directory,
    pub current: Current,
    pub events: Events,
    pub logs: Logs,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub requests: mpsc::Sender<Request>,
    pub facts: Facts,
}

/// Shared by the services.
pub(super) struct Plane {
    pub(super) control: Control,
    pub(super) operations: Operations,
    pub(super) course: watch::Receiver<Course>,
}

// === impl Plane ===

impl Plane {
    pub(super) fn status(&self) -> v1::StatusReply {
        let Control { reloader, metrics, readiness, facts, .. } = &self.control;
        let (active, idle, total) = metrics.connections();
        let config = reloader.config();
        v1::StatusReply {
            version: facts.version.clone(),
            pid: facts.pid,
            uptime_seconds: facts.started.elapsed().as_secs(),
            config_generation: reloader.generation(),
            engine_generation: facts.engine_generation,
            state: convert::state(readiness.state()).to_owned(),
            reasons: readiness.reasons(),
            config_path: config.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            workers: u32::try_from(facts.workers).unwrap_or(u32::MAX),
            listeners: facts.listeners.open().into_iter().map(convert::listener).collect(),
            apps: self.apps(),
            certificates: self.certificates(),
            connections: Some(v1::Connections { active, idle, total }),
            io_backend: facts.io_backend.clone(),
        }
    }

    /// The caller, if they may do what `method` names; else why not, with a line in the audit log.
    pub(super) async fn permit(&self, peer: Peer, method: &'static str, right: Right<'_>) -> Result<Caller, Status> {
        let (caller, standing) = self.standing(peer).await;
        if standing.allows(right) {
            return Ok(caller);
        }
        let target = match right {
            Right::Read(app) | Right::Steer(app) => app,
            Right::Look | Right::Operate | Right::Administer => "",
        };
        let denial = Denial { caller: &caller, standing: &standing, method, right }.to_string();
        caller.record(method, target, &denial);
        Err(Status::permission_denied(denial))
    }

    pub(super) async fn standing(&self, peer: Peer) -> (Caller, Standing) {
        peer.known(&self.control.reloader.config().control.acl).await
    }

    pub(super) fn is_app(&self, name: &str) -> bool {
        self.control.app.statuses().iter().any(|it| it.name == name)
    }

    /// Takes away what the caller may not see of `apps`.
    pub(super) async fn seen_by(&self, peer: Peer, apps: &mut [v1::App]) {
        if self.control.reloader.config().control.acl.is_none() {
            return;
        }
        let (_, standing) = self.standing(peer).await;
        apps.iter_mut().for_each(|it| standing.cover_app(it));
    }

    pub(super) fn apps(&self) -> Vec<v1::App> {
        let now = SystemTime::now();
        self.control.app.statuses().iter().map(|status| convert::app(status, now)).collect()
    }

    pub(super) fn certificates(&self) -> Vec<v1::Certificate> {
        let snapshot = self.control.current.load();
        let now = SystemTime::now();
        let own = snapshot.tls.iter().flat_map(|it| it.certificates()).map(|it| convert::certificate(it, now));
        let standings = self.control.certificates.standings();
        // A stand-in may have the same name: what was asked for comes first.
        standings.iter().map(|it| convert::standing(it, now)).chain(own).collect()
    }

    /// Begins an operation for `caller`, with a line in the audit log now and one at its end.
    pub(super) fn operate<F>(
        &self,
        caller: Caller,
        order: Order,
        work: impl FnOnce(mpsc::UnboundedSender<String>) -> F,
    ) -> Result<v1::Operation, Status>
    where
        F: Future<Output = Ending> + Send + 'static,
    {
        let (kind, target) = (order.kind, order.target.clone());
        let at_end = (caller.clone(), target.clone());
        let begun = self.operations.begin(order, Instant::now(), move |progress| {
            let work = work(progress);
            async move {
                let ending = work.await;
                let (caller, target) = at_end;
                caller.record(kind, &target, outcome(&ending));
                ending
            }
        });
        let reply = begun.map_err(|known| {
            Status::already_exists(format!("the request id was used for operation {} with other arguments", known.id))
        });
        let result = match &reply {
            Ok(operation) => format!("operation {}", operation.id),
            Err(status) => status.message().to_owned(),
        };
        caller.record(kind, &target, &result);
        reply
    }
}

fn outcome(ending: &Ending) -> &str {
    match ending {
        Ending::Done { .. } => "done",
        Ending::Failed { error, .. } => &error.message,
        Ending::Cancelled => "cancelled",
    }
}
