//! The daemon itself: what it is, what it runs on, reload and the end.

use std::{path::PathBuf, sync::Arc};

use proto::v1::{self, daemon_server};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::Reply;
use crate::control::{
    self, Order,
    access::{Peer, Right},
    convert::{reload_ending, upgrade_ending},
    plane::Plane,
};
use crate::reload::Reload;

pub(in crate::control) struct Daemon(pub(in crate::control) Arc<Plane>);

#[tonic::async_trait]
impl daemon_server::Daemon for Daemon {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Reply<v1::VersionReply> {
        let version = self.0.control.facts.version.clone();
        Ok(Response::new(v1::VersionReply { version, pid: self.0.control.facts.pid }))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Reply<v1::StatusReply> {
        let mut status = self.0.status();
        self.0.seen_by(Peer::of(&request), &mut status.apps).await;
        Ok(Response::new(status))
    }

    async fn reload(&self, request: Request<v1::ReloadRequest>) -> Reply<v1::Operation> {
        let peer = Peer::of(&request);
        let ask = request.into_inner();
        let right = if ask.path.is_some() { Right::Administer } else { Right::Operate };
        let caller = self.0.permit(peer, "reload", right).await?;
        let order = Order {
            kind: "reload",
            target: ask.path.clone().unwrap_or_default(),
            request_id: ask.request_id,
            arguments: format!("{} {}", ask.dry_run, ask.allow_failing_apps),
            holder: caller.holder(),
        };
        let reloader = self.0.control.reloader.clone();
        let what = Reload {
            path: ask.path.map(PathBuf::from),
            dry_run: ask.dry_run,
            allow_failing_apps: ask.allow_failing_apps,
        };
        self.0.operate(caller, order, |_| async move { reload_ending(&reloader.reload(what).await) }).map(Response::new)
    }

    async fn upgrade(&self, request: Request<v1::UpgradeRequest>) -> Reply<v1::Operation> {
        let caller = self.0.permit(Peer::of(&request), "upgrade", Right::Administer).await?;
        let ask = request.into_inner();
        let order = Order {
            kind: "upgrade",
            target: "miwid".to_owned(),
            request_id: ask.request_id,
            arguments: ask.binary.clone().unwrap_or_default(),
            holder: caller.holder(),
        };
        let requests = self.0.control.requests.clone();
        let binary = ask.binary.map(PathBuf::from);
        let work = |progress| async move {
            let (reply, answer) = oneshot::channel();
            // Refused only at the end of the daemon.
            let _ = requests.send(control::Request::Upgrade(control::Upgrade { binary, progress, reply })).await;
            upgrade_ending(answer.await.ok())
        };
        self.0.operate(caller, order, work).map(Response::new)
    }

    async fn config(&self, request: Request<v1::ConfigRequest>) -> Reply<v1::ConfigReply> {
        // Not everything that is secret is known to be: an argument may have a password in it.
        let caller = self.0.permit(Peer::of(&request), "config", Right::Operate).await?;
        let reloader = &self.0.control.reloader;
        // Secrets write themselves as `***`.
        let json = serde_json::to_string(&*reloader.config()).map_err(|error| Status::internal(error.to_string()))?;
        caller.record("config", "", "ok");
        Ok(Response::new(v1::ConfigReply { json, config_generation: reloader.generation() }))
    }

    async fn shutdown(&self, request: Request<v1::ShutdownRequest>) -> Reply<v1::ShutdownReply> {
        let caller = self.0.permit(Peer::of(&request), "shutdown", Right::Administer).await?;
        let sent = self.0.control.requests.try_send(control::Request::Shutdown);
        let reply = match sent {
            Ok(()) => Ok(Response::new(v1::ShutdownReply { pid: self.0.control.facts.pid })),
            Err(_) => Err(Status::failed_precondition("the daemon is already stopping")),
        };
        caller.audited("shutdown", "", reply)
    }
}
