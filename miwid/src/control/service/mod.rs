//! The gRPC services, one short method for each call.

mod apps;
mod certificates;
mod cloudflare;
mod daemon;
mod deploy;
mod events;
mod logs;
mod operations;
mod tail;
mod upstreams;

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Response, Status};

use super::{Course, plane::Plane};

pub(super) use apps::Apps;
pub(super) use certificates::Certificates;
pub(super) use cloudflare::Cloudflare;
pub(super) use daemon::Daemon;
pub(super) use events::Events;
pub(super) use logs::Logs;
pub(super) use operations::Operations;
pub(super) use upstreams::Upstreams;

type Reply<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A stream that ends only with this engine: when another one goes on, whoever follows is told to ask that one.
fn lasting<T: Send + 'static>(
    plane: &Plane,
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Streamed<T> {
    let farewell =
        stream::once(async { Err(Status::unavailable("another engine goes on with everything: ask again")) });
    Box::pin(stream.take_until(Box::pin(Course::ended(plane.course.clone()))).chain(farewell))
}
