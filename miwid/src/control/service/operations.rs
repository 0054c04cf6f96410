//! Looking at operations, following them, cancelling them.

use std::sync::Arc;

use futures_util::stream;
use proto::v1::{self, operations_server};
use tonic::{Request, Response, Status};

use super::{Reply, Streamed};
use crate::app::Refusal;
use crate::control::{
    access::{Peer, Right},
    plane::Plane,
};

pub(in crate::control) struct Operations(pub(in crate::control) Arc<Plane>);

impl Operations {
    fn find(&self, id: &str) -> Result<v1::Operation, Status> {
        self.0.operations.find(id).ok_or_else(|| unknown(id))
    }

    async fn cancelled(&self, id: &str) -> Result<v1::Operation, Status> {
        let operation = self.find(id)?;
        if operation.ended.is_some() {
            return Err(Status::failed_precondition(format!("operation {id} has ended ({})", operation.state)));
        }
        if operation.kind == "reload" {
            return Err(Status::failed_precondition("a reload cannot be cancelled"));
        }
        match self.0.control.app.cancel(&operation.target).await {
            Ok(_) | Err(Refusal::Cancelled) => self.find(id),
            Err(Refusal::NotFound { name, .. }) => Err(Status::not_found(format!("there is no app `{name}`"))),
            Err(Refusal::Conflict(reason) | Refusal::Failed { reason, .. }) => Err(Status::failed_precondition(reason)),
        }
    }
}

fn unknown(id: &str) -> Status {
    Status::not_found(format!("there is no operation `{id}`"))
}

#[tonic::async_trait]
impl operations_server::Operations for Operations {
    type WatchStream = Streamed<v1::Operation>;

    async fn get(&self, request: Request<v1::GetOperationRequest>) -> Reply<v1::Operation> {
        let mut operation = self.find(&request.get_ref().id)?;
        self.0.standing(Peer::of(&request)).await.1.cover(&mut operation);
        Ok(Response::new(operation))
    }

    async fn list(&self, request: Request<v1::ListOperationsRequest>) -> Reply<v1::ListOperationsReply> {
        let (_, standing) = self.0.standing(Peer::of(&request)).await;
        let mut operations = self.0.operations.list();
        operations.iter_mut().for_each(|it| standing.cover(it));
        Ok(Response::new(v1::ListOperationsReply { operations }))
    }

    async fn cancel(&self, request: Request<v1::CancelOperationRequest>) -> Reply<v1::Operation> {
        let id = &request.get_ref().id;
        let operation = self.find(id)?;
        let is_app = self.0.is_app(&operation.target);
        let right = if is_app { Right::Steer(&operation.target) } else { Right::Administer };
        let caller = self.0.permit(Peer::of(&request), "cancel", right).await?;
        let reply = self.cancelled(id).await;
        caller.audited("cancel", id, reply).map(Response::new)
    }

    async fn watch(&self, request: Request<v1::WatchOperationRequest>) -> Reply<Self::WatchStream> {
        let id = &request.get_ref().id;
        let mut state = self.0.operations.watch(id).ok_or_else(|| unknown(id))?;
        state.mark_changed();
        let (_, standing) = self.0.standing(Peer::of(&request)).await;
        let states = stream::unfold(Some((state, standing)), |watched| async move {
            let (mut state, standing) = watched?;
            state.changed().await.ok()?;
            let mut operation = state.borrow_and_update().clone();
            standing.cover(&mut operation);
            let rest = operation.ended.is_none().then_some((state, standing));
            Some((Ok(operation), rest))
        });
        Ok(Response::new(Box::pin(states)))
    }
}
