//! Streams that follow something: they end with this engine. When another one goes on, whoever follows is told to ask that.

use std::{pin::Pin, task::Poll};

use futures_util::{FutureExt as _, Stream, stream};
use tokio::sync::watch;
use tonic::Status;

use super::Streamed;
use crate::control::Course;

/// `stream` up to its end, or until this engine leaves and nothing is at hand any more.
pub(super) fn lasting<T: 'static>(
    course: watch::Receiver<Course>,
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Streamed<T> {
    until(Course::ended(course), stream)
}

/// `stream` up to its end, or until somebody else has what it tells of, for however long.
pub(super) fn here<T: 'static>(
    mut course: watch::Receiver<Course>,
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Streamed<T> {
    let elsewhere = async move {
        let _ = course.wait_for(|it| *it != Course::Serving).await;
    };
    until(elsewhere, stream)
}

fn until<T: 'static>(
    over: impl Future<Output = ()> + Send + 'static,
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Streamed<T> {
    let (mut stream, mut over) = (Box::pin(stream), Box::pin(over.fuse()));
    let mut is_told = false;
    Box::pin(stream::poll_fn(move |cx| {
        if is_told {
            return Poll::Ready(None);
        }
        let next = stream.as_mut().poll_next(cx);
        if next.is_pending() && Pin::new(&mut over).poll(cx).is_ready() {
            is_told = true;
            return Poll::Ready(Some(Err(Status::unavailable("the engine that sent this has ended"))));
        }
        next
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    async fn told(stream: Streamed<u32>) -> Vec<Result<u32, tonic::Code>> {
        stream.map(|it| it.map_err(|status| status.code())).collect().await
    }

    #[tokio::test]
    async fn what_is_at_hand_is_told_before_the_end_and_an_end_of_its_own_is_none_of_ours() {
        let numbers = || stream::iter([Ok(1), Ok(2)]);
        let (course, followed) = watch::channel(Course::Serving);
        assert_eq!(told(lasting(followed.clone(), numbers())).await, [Ok(1), Ok(2)]);
        course.send_replace(Course::Paused);
        let gone = Err(tonic::Code::Unavailable);
        assert_eq!(told(here(followed.clone(), numbers().chain(stream::pending()))).await, [Ok(1), Ok(2), gone]);
        let mut followed_on = lasting(followed.clone(), numbers().chain(stream::pending()));
        assert!(followed_on.next().await.is_some() && followed_on.next().await.is_some());
        assert!(followed_on.next().now_or_never().is_none(), "it may go on here");
        course.send_replace(Course::Leaving);
        assert_eq!(told(followed_on).await, [gone]);
    }
}
