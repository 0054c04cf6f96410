//! Log files and the output of apps.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use proto::v1::{self, logs_server};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tonic::{Request, Response, Status};

use super::{Reply, Streamed, here, lasting, tail};
use crate::app::{Refusal, Tail};
use crate::control::{
    access::{Peer, Right},
    convert,
    plane::Plane,
};

const LINES_MAX: u32 = 10_000;

pub(in crate::control) struct Logs(pub(in crate::control) Arc<Plane>);

impl Logs {
    async fn rotated(&self, name: Option<String>) -> Result<v1::RotateLogsReply, Status> {
        let logs = self.0.control.logs.clone();
        if let Some(name) = name.as_deref().filter(|name| logs.path(name).is_none()) {
            return Err(unknown(name));
        }
        let rotated = tokio::task::spawn_blocking(move || logs.rotate(name.as_deref())).await;
        let backups = rotated.map_err(|error| Status::internal(error.to_string()))?;
        let backups = backups.map_err(|error| Status::internal(format!("the log could not be rotated: {error}")))?;
        Ok(v1::RotateLogsReply { backups: backups.iter().map(|path| path.display().to_string()).collect() })
    }
}

fn unknown(name: &str) -> Status {
    Status::not_found(format!("there is no log `{name}`"))
}

#[tonic::async_trait]
impl logs_server::Logs for Logs {
    type TailStream = Streamed<v1::LogLine>;

    async fn list(&self, _: Request<v1::ListLogsRequest>) -> Reply<v1::ListLogsReply> {
        let logs = self.0.control.logs.clone();
        let files = tokio::task::spawn_blocking(move || logs.list()).await;
        let files = files.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(v1::ListLogsReply { logs: files.into_iter().map(convert::log_file).collect() }))
    }

    async fn rotate(&self, request: Request<v1::RotateLogsRequest>) -> Reply<v1::RotateLogsReply> {
        let peer = Peer::of(&request);
        let name = request.into_inner().name;
        let caller = match name.as_deref().filter(|it| self.0.is_app(it)) {
            Some(app) => self.0.permit(peer, "rotate", Right::Steer(app)).await?,
            None => self.0.permit(peer, "rotate", Right::Operate).await?,
        };
        let target = name.clone().unwrap_or_else(|| "all".to_owned());
        caller.audited("rotate", &target, self.rotated(name).await).map(Response::new)
    }

    /// An app's output comes from the supervisor's memory; any other log from its file.
    async fn tail(&self, request: Request<v1::TailRequest>) -> Reply<Self::TailStream> {
        let peer = Peer::of(&request);
        let ask = request.into_inner();
        let right = if self.0.is_app(&ask.name) { Right::Read(&ask.name) } else { Right::Operate };
        self.0.permit(peer, "logs", right).await?;
        let lines = ask.lines.min(LINES_MAX) as usize;
        match self.0.control.app.logs(&ask.name, lines).await {
            Ok(logs) => {
                let recent: Vec<_> = logs.recent.iter().map(|line| Ok(convert::line(line))).collect();
                let recent = stream::iter(recent);
                let all: Self::TailStream = if ask.follow {
                    here(self.0.course.clone(), recent.chain(following(logs.follow)))
                } else {
                    Box::pin(recent)
                };
                Ok(Response::new(all))
            }
            Err(Refusal::NotFound { .. } | Refusal::Cancelled) => {
                let path = self.0.control.logs.path(&ask.name).ok_or_else(|| unknown(&ask.name))?;
                let from = ask.after.parse().map_or(tail::Start::Last(lines), tail::Start::After);
                let read = tail::file(ask.name, path, from, ask.follow).await;
                let read = read.map_err(|error| Status::internal(format!("the log cannot be read: {error}")))?;
                Ok(Response::new(if ask.follow { lasting(self.0.course.clone(), read) } else { read }))
            }
            Err(Refusal::Conflict(reason) | Refusal::Failed { reason, .. }) => Err(Status::failed_precondition(reason)),
        }
    }
}

fn following(feed: Receiver<Tail>) -> Streamed<v1::LogLine> {
    Box::pin(stream::unfold(feed, |mut feed| async move {
        match feed.recv().await {
            Ok(line) => Some((Ok(convert::line(&line)), feed)),
            Err(RecvError::Lagged(gap)) => Some((Ok(v1::LogLine { gap, ..v1::LogLine::default() }), feed)),
            Err(RecvError::Closed) => None,
        }
    }))
}
