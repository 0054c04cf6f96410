//! Looking at operations, following them, cancelling them.

use std::sync::Arc;

use futures_util::stream;
use proto::v1::{self, operations_server};
use tonic::{Request, Response, Status};

use super::{Reply, Streamed};
use crate::app::Refusal;
use crate::control::{audit::Caller, plane::Plane};

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
        self.find(&request.get_ref().id).map(Response::new)
    }

    async fn list(&self, _: Request<v1::ListOperationsRequest>) -> Reply<v1::ListOperationsReply> {
        Ok(Response::new(v1::ListOperationsReply { operations: self.0.operations.list() }))
    }

    async fn cancel(&self, request: Request<v1::CancelOperationRequest>) -> Reply<v1::Operation> {
        let id = &request.get_ref().id;
        let reply = self.cancelled(id).await;
        Caller::of(&request).audited("cancel", id, reply).map(Response::new)
    }

    async fn watch(&self, request: Request<v1::WatchOperationRequest>) -> Reply<Self::WatchStream> {
        let id = &request.get_ref().id;
        let mut state = self.0.operations.watch(id).ok_or_else(|| unknown(id))?;
        state.mark_changed();
        let states = stream::unfold(Some(state), |state| async move {
            let mut state = state?;
            state.changed().await.ok()?;
            let operation = state.borrow_and_update().clone();
            let rest = operation.ended.is_none().then_some(state);
            Some((Ok(operation), rest))
        });
        Ok(Response::new(Box::pin(states)))
    }
}
