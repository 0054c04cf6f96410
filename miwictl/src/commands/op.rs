//! `miwictl op`: operations that run or ran.

use proto::v1::{CancelOperationRequest, GetOperationRequest, ListOperationsReply, ListOperationsRequest, Operation};

use super::connect;
use crate::{
    cli::{Globals, OpCommand},
    error::{Error, Result},
    follow::{follow, verdict},
    output,
};

pub(super) async fn run(globals: &Globals, command: &OpCommand) -> Result {
    let client = connect(globals).await?;
    let mut operations = client.operations();
    match command {
        OpCommand::List => {
            let reply = operations.list(ListOperationsRequest {}).await?.into_inner();
            output::document(globals, &reply, list);
            Ok(())
        }
        OpCommand::Watch { id } => {
            let found = operations.get(GetOperationRequest { id: id.clone() }).await.map_err(unknown)?.into_inner();
            let ended = follow(&client, globals, found).await?;
            output::document(globals, &ended, one);
            verdict(&ended).map_err(Error::answered)
        }
        OpCommand::Cancel { id } => {
            let request = CancelOperationRequest { id: id.clone() };
            let operation = operations.cancel(request).await.map_err(unknown)?.into_inner();
            output::document(globals, &operation, one);
            Ok(())
        }
    }
}

fn unknown(status: tonic::Status) -> Error {
    let error = Error::from(status);
    if &*error.code == "not-found" { error.hint("`miwictl op list` shows what there is") } else { error }
}

fn one(operation: &Operation) -> String {
    let Operation { id, kind, target, state, result, .. } = operation;
    format!("{id}  {kind} {target}: {state} {result}").trim_end().to_owned()
}

fn list(reply: &ListOperationsReply) -> String {
    let rows = reply.operations.iter().cloned().map(|operation| {
        [operation.id, operation.kind, operation.target, operation.state, operation.holder, operation.started]
    });
    output::table(["ID", "KIND", "TARGET", "STATE", "BY", "STARTED"], rows)
}
