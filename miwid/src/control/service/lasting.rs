//! Streams that have no end of their own: they end with this engine. When another one goes on, whoever follows is told to ask that.

use futures_util::{Stream, StreamExt as _, stream};
use tonic::Status;

use super::Streamed;
use crate::control::{Course, plane::Plane};

/// `stream`, until this engine leaves.
pub(super) fn lasting<T: Send + 'static>(
    plane: &Plane,
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Streamed<T> {
    let farewell = stream::once(async { Err(Status::unavailable("the engine that sent this has ended")) });
    Box::pin(stream.take_until(Box::pin(Course::ended(plane.course.clone()))).chain(farewell))
}
