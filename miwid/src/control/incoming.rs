//! Connections to the socket, at most 64 at a time, the last four for root: a stuck script must not lock the operator out.
//! One too many is closed at once rather than left waiting.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, stream};
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tonic::transport::server::{Connected, UdsConnectInfo};

use super::Course;

const CONNECTIONS_MAX: usize = 64;
const RESERVED_FOR_ROOT: usize = 4;

pin_project! {
    /// A connection that gives its place back when it closes.
    pub(super) struct Admitted {
        #[pin]
        stream: UnixStream,
        place: OwnedSemaphorePermit,
    }
}

/// The connections of `listener` that there is room for, while they are ours to accept.
pub(super) fn admitted(
    listener: UnixListener,
    course: watch::Receiver<Course>,
) -> impl Stream<Item = io::Result<Admitted>> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    stream::unfold((listener, places, course), |(listener, places, mut course)| async move {
        loop {
            let _ = course.wait_for(|it| *it == Course::Serving).await;
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = course.wait_for(|it| *it != Course::Serving) => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    if let Some(connection) = admit(stream, &places) {
                        return Some((Ok(connection), (listener, places, course)));
                    }
                    tracing::warn!("control connection refused: too many are open");
                }
                Err(error) => {
                    tracing::warn!(%error, "control connection not accepted");
                    // Out of descriptors: trying again at once would spin.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    })
}

fn admit(stream: UnixStream, places: &Arc<Semaphore>) -> Option<Admitted> {
    let root = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0);
    if !root && places.available_permits() <= RESERVED_FOR_ROOT {
        return None;
    }
    let place = places.clone().try_acquire_owned().ok()?;
    Some(Admitted { stream, place })
}

impl Connected for Admitted {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Admitted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_read(cx, buf)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_connection_without_a_free_place_is_refused_and_a_closed_one_frees_its_own() {
        let places = Arc::new(Semaphore::new(RESERVED_FOR_ROOT + 1));
        let streams: Vec<_> = (0..8).map(|_| UnixStream::pair().unwrap().0).collect();
        let mut held: Vec<_> = streams.into_iter().filter_map(|stream| admit(stream, &places)).collect();
        let root = nix::unistd::geteuid().is_root();
        assert_eq!(held.len(), if root { RESERVED_FOR_ROOT + 1 } else { 1 });
        held.pop();
        assert!(admit(UnixStream::pair().unwrap().0, &places).is_some());
    }
}
