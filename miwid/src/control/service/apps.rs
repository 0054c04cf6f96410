//! Managed apps. Every change is an operation; the supervisor decides, this file only asks it.

use std::sync::Arc;

use proto::v1::{self, apps_server};
use tonic::{Request, Response, Status, Streaming};

use super::{Reply, deploy};
use crate::app::{Release, RestartOptions};
use crate::control::{
    Order,
    access::{Peer, Right},
    audit::Caller,
    plane::Plane,
};

pub(in crate::control) struct Apps(pub(in crate::control) Arc<Plane>);

fn order(kind: &'static str, name: &str, request_id: &str, arguments: String, caller: &Caller) -> Order {
    Order { kind, target: name.to_owned(), request_id: request_id.to_owned(), arguments, holder: caller.holder() }
}

#[tonic::async_trait]
impl apps_server::Apps for Apps {
    async fn list(&self, request: Request<v1::ListAppsRequest>) -> Reply<v1::ListAppsReply> {
        let mut apps = self.0.apps();
        self.0.seen_by(Peer::of(&request), &mut apps).await;
        Ok(Response::new(v1::ListAppsReply { apps }))
    }

    async fn get(&self, request: Request<v1::GetAppRequest>) -> Reply<v1::App> {
        let peer = Peer::of(&request);
        let name = request.into_inner().name;
        let found = self.0.apps().into_iter().find(|app| app.name == name || app.site == name);
        let mut found = found.ok_or_else(|| Status::not_found(format!("there is no app `{name}`")))?;
        self.0.seen_by(peer, std::slice::from_mut(&mut found)).await;
        Ok(Response::new(found))
    }

    async fn start(&self, request: Request<v1::StartRequest>) -> Reply<v1::Operation> {
        let peer = Peer::of(&request);
        let ask = request.into_inner();
        let caller = self.0.permit(peer, "start", Right::Steer(&ask.name)).await?;
        let order = order("start", &ask.name, &ask.request_id, String::new(), &caller);
        let (app, holder) = (self.0.control.app.clone(), caller.holder());
        self.0
            .operate(caller, order, |progress| async move { app.start(&ask.name, &holder, progress).await.into() })
            .map(Response::new)
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Reply<v1::Operation> {
        let peer = Peer::of(&request);
        let ask = request.into_inner();
        let caller = self.0.permit(peer, "stop", Right::Steer(&ask.name)).await?;
        let order = order("stop", &ask.name, &ask.request_id, ask.now.to_string(), &caller);
        let (app, holder) = (self.0.control.app.clone(), caller.holder());
        self.0
            .operate(
                caller,
                order,
                |progress| async move { app.stop(&ask.name, ask.now, &holder, progress).await.into() },
            )
            .map(Response::new)
    }

    async fn restart(&self, request: Request<v1::RestartRequest>) -> Reply<v1::Operation> {
        let peer = Peer::of(&request);
        let ask = request.into_inner();
        let caller = self.0.permit(peer, "restart", Right::Steer(&ask.name)).await?;
        let options = restart_options(&ask)?;
        let order = order("restart", &ask.name, &ask.request_id, format!("{options:?}"), &caller);
        let (app, holder) = (self.0.control.app.clone(), caller.holder());
        self.0
            .operate(caller, order, |progress| async move {
                app.restart(&ask.name, options, &holder, progress).await.into()
            })
            .map(Response::new)
    }

    async fn scale(&self, request: Request<v1::ScaleRequest>) -> Reply<v1::Operation> {
        let peer = Peer::of(&request);
        let ask = request.into_inner();
        let caller = self.0.permit(peer, "scale", Right::Steer(&ask.name)).await?;
        let order = order("scale", &ask.name, &ask.request_id, ask.instances.to_string(), &caller);
        let (app, holder) = (self.0.control.app.clone(), caller.holder());
        self.0
            .operate(caller, order, |progress| async move {
                app.scale(&ask.name, ask.instances, &holder, progress).await.into()
            })
            .map(Response::new)
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Reply<v1::Operation> {
        let peer = Peer::of(&request);
        let ask = request.into_inner();
        let caller = self.0.permit(peer, "pause", Right::Steer(&ask.name)).await?;
        let order = order("pause", &ask.name, &ask.request_id, String::new(), &caller);
        let (app, holder) = (self.0.control.app.clone(), caller.holder());
        self.0.operate(caller, order, |_| async move { app.pause(&ask.name, &holder).await.into() }).map(Response::new)
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> Reply<v1::Operation> {
        let peer = Peer::of(&request);
        let ask = request.into_inner();
        let caller = self.0.permit(peer, "resume", Right::Steer(&ask.name)).await?;
        let order = order("resume", &ask.name, &ask.request_id, String::new(), &caller);
        let (app, holder) = (self.0.control.app.clone(), caller.holder());
        self.0.operate(caller, order, |_| async move { app.resume(&ask.name, &holder).await.into() }).map(Response::new)
    }

    async fn reset(&self, request: Request<v1::ResetRequest>) -> Reply<v1::Operation> {
        let peer = Peer::of(&request);
        let ask = request.into_inner();
        let caller = self.0.permit(peer, "reset", Right::Steer(&ask.name)).await?;
        let order = order("reset", &ask.name, &ask.request_id, String::new(), &caller);
        let (app, holder) = (self.0.control.app.clone(), caller.holder());
        self.0
            .operate(caller, order, |progress| async move { app.reset(&ask.name, &holder, progress).await.into() })
            .map(Response::new)
    }

    async fn deploy(&self, request: Request<Streaming<v1::DeployRequest>>) -> Reply<v1::Operation> {
        let peer = Peer::of(&request);
        let mut stream = request.into_inner();
        let head = deploy::head(&mut stream).await?;
        let caller = self.0.permit(peer, "deploy", Right::Steer(&head.name)).await?;
        let received = deploy::receive(&self.0.control.app, head, stream).await?;
        let on_failure = on_failure(received.head.on_failure.as_deref())?;
        let v1::DeployHead { name, request_id, .. } = received.head;
        let order = order("deploy", &name, &request_id, String::new(), &caller);
        let (app, holder) = (self.0.control.app.clone(), caller.holder());
        let release = Release { name: received.release, on_failure };
        self.0
            .operate(
                caller,
                order,
                |progress| async move { app.deploy(&name, release, &holder, progress).await.into() },
            )
            .map(Response::new)
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Reply<v1::Operation> {
        let peer = Peer::of(&request);
        let ask = request.into_inner();
        let caller = self.0.permit(peer, "rollback", Right::Steer(&ask.name)).await?;
        let order = order("rollback", &ask.name, &ask.request_id, String::new(), &caller);
        let (app, holder) = (self.0.control.app.clone(), caller.holder());
        self.0
            .operate(caller, order, |progress| async move { app.rollback(&ask.name, &holder, progress).await.into() })
            .map(Response::new)
    }
}

fn on_failure(word: Option<&str>) -> Result<Option<config::OnFailure>, Status> {
    match word {
        None => Ok(None),
        Some("halt") => Ok(Some(config::OnFailure::Halt)),
        Some("rollback") => Ok(Some(config::OnFailure::Rollback)),
        Some(other) => Err(Status::invalid_argument(format!("on_failure is halt or rollback, not `{other}`"))),
    }
}

fn restart_options(ask: &v1::RestartRequest) -> Result<RestartOptions, Status> {
    let on_failure = on_failure(ask.on_failure.as_deref())?;
    Ok(RestartOptions { hard: ask.hard, instance: ask.instance, on_failure })
}
