//! miwictl, the binary, against a control service that answers from a script: exit codes, what is on which stream.

#![allow(clippy::unwrap_used)]

use std::process::Output;

use proto::v1::{
    CancelOperationRequest, ConfigReply, ConfigRequest, GetOperationRequest, ListOperationsReply,
    ListOperationsRequest, Operation, OperationError, ReloadReport, ReloadRequest, ShutdownReply, ShutdownRequest,
    StatusReply, StatusRequest, UpgradeRequest, VersionReply, VersionRequest, WatchOperationRequest, daemon_server,
    operations_server,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

type Reply<T> = Result<Response<T>, Status>;

/// Says it is in this state; its reload ends as `reload`.
#[derive(Clone)]
struct Script {
    state: &'static str,
    /// `None`: it never ends.
    reload: Option<Operation>,
}

#[tonic::async_trait]
impl daemon_server::Daemon for Script {
    async fn version(&self, _: Request<VersionRequest>) -> Reply<VersionReply> {
        Ok(Response::new(VersionReply::default()))
    }
    async fn status(&self, _: Request<StatusRequest>) -> Reply<StatusReply> {
        Ok(Response::new(StatusReply { version: "9.9.9".into(), state: self.state.into(), ..Default::default() }))
    }
    async fn reload(&self, _: Request<ReloadRequest>) -> Reply<Operation> {
        Ok(Response::new(Operation { id: "op1".into(), state: "running".into(), ..Default::default() }))
    }
    async fn config(&self, _: Request<ConfigRequest>) -> Reply<ConfigReply> {
        Err(Status::permission_denied("not you"))
    }
    async fn upgrade(&self, _: Request<UpgradeRequest>) -> Reply<Operation> {
        Err(Status::failed_precondition("already stopping"))
    }
    async fn shutdown(&self, _: Request<ShutdownRequest>) -> Reply<ShutdownReply> {
        Err(Status::failed_precondition("already stopping"))
    }
}

#[tonic::async_trait]
impl operations_server::Operations for Script {
    type WatchStream = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Operation, Status>> + Send>>;

    async fn get(&self, request: Request<GetOperationRequest>) -> Reply<Operation> {
        Err(Status::not_found(format!("there is no operation `{}`", request.get_ref().id)))
    }
    async fn list(&self, _: Request<ListOperationsRequest>) -> Reply<ListOperationsReply> {
        Ok(Response::new(ListOperationsReply::default()))
    }
    async fn cancel(&self, _: Request<CancelOperationRequest>) -> Reply<Operation> {
        Err(Status::not_found("x"))
    }
    async fn watch(&self, _: Request<WatchOperationRequest>) -> Reply<Self::WatchStream> {
        let stream: Self::WatchStream = match self.reload.clone() {
            Some(ended) => Box::pin(futures_util::stream::iter([Ok(ended)])),
            None => Box::pin(futures_util::stream::pending()),
        };
        Ok(Response::new(stream))
    }
}

async fn miwictl(script: Script, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(daemon_server::DaemonServer::new(script.clone()))
        .add_service(operations_server::OperationsServer::new(script))
        .serve_with_incoming(UnixListenerStream::new(listener));
    let server = tokio::spawn(server);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_miwictl"));
    command.arg("--socket").arg(&path).args(args);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    server.abort();
    output
}

fn in_state(state: &'static str) -> Script {
    Script { state, reload: None }
}

fn reload_ends(result: &str, exit: i32) -> Script {
    let report = ReloadReport { result: result.into(), config_generation: 4, ..Default::default() };
    let error = OperationError { code: result.into(), exit, message: "no good".into(), ..Default::default() };
    let ended = Operation {
        state: if exit == 0 { "done".into() } else { "failed".into() },
        ended: Some("1970-01-01T00:00:00Z".into()),
        error: (exit != 0).then_some(error),
        reload: Some(report),
        ..Default::default()
    };
    Script { state: "ready", reload: Some(ended) }
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("standard output is one JSON document")
}

#[tokio::test]
async fn status_shows_the_daemon_and_only_check_judges() {
    let cases = [("ready", "--check", 0), ("degraded", "--check", 6), ("degraded", "-q", 0)];
    for (state, flag, exit) in cases {
        let output = miwictl(in_state(state), &["status", flag]).await;
        assert_eq!(output.status.code(), Some(exit), "{state} {flag}");
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("miwid 9.9.9"));
    }
}

#[tokio::test]
async fn status_as_json_is_one_document_even_when_the_check_fails() {
    let output = miwictl(in_state("degraded"), &["status", "--check", "-o", "json"]).await;
    let document = json(&output);
    assert_eq!((&document["schema"], &document["state"]), (&"miwi/v1".into(), &"degraded".into()));
}

#[tokio::test]
async fn reload_ends_with_the_exit_code_of_its_result() {
    for (result, exit) in [("applied", 0), ("unchanged", 0), ("rejected", 6), ("partial", 9)] {
        let output = miwictl(reload_ends(result, exit), &["reload", "-o", "json"]).await;
        assert_eq!(output.status.code(), Some(exit), "{result}");
        assert_eq!(json(&output)["result"], result);
    }
}

#[tokio::test]
async fn out_of_patience_the_operation_goes_on_and_the_way_back_is_shown() {
    let output = miwictl(in_state("ready"), &["reload", "--timeout", "100ms"]).await;
    assert_eq!(output.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&output.stderr).contains("miwictl op watch op1"));
}

#[tokio::test]
async fn without_waiting_the_operation_is_named() {
    let output = miwictl(in_state("ready"), &["reload", "--no-wait"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "op1");
}

#[tokio::test]
async fn refusals_have_their_exit_code_and_are_json_on_standard_output() {
    let cases: [(&[&str], i32); 3] = [
        (&["config", "show", "-o", "json"], 4),
        (&["op", "watch", "nope", "-o", "json"], 5),
        (&["shutdown", "-o", "json"], 8),
    ];
    for (args, exit) in cases {
        let output = miwictl(in_state("ready"), args).await;
        assert_eq!(output.status.code(), Some(exit), "{args:?}");
        assert_eq!(json(&output)["error"]["exit"], exit, "{args:?}");
    }
}
