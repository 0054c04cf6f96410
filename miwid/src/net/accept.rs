//! Accepting: no more than the limit, and with a pause when the process has run out of descriptors.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Long enough for connections to end, short enough that nobody notices.
const PAUSE_WITHOUT_DESCRIPTORS: Duration = Duration::from_millis(100);

/// How many connections may be open, over all workers. At the limit nobody accepts: the kernel's backlog holds the rest.
#[derive(Clone)]
pub struct Admission(Arc<Semaphore>);

/// One open connection.
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Admission {
    pub fn new(connections_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS))))
    }

    async fn enter(&self) -> Permit {
        let permit = self.0.clone().acquire_owned().await;
        Permit(permit.expect("the semaphore is never closed"))
    }
}

/// The next connection. Errors of a single connection are skipped; a lack of descriptors waits.
pub async fn accept(listener: &TcpListener, admission: &Admission) -> (TcpStream, SocketAddr, Permit) {
    let permit = admission.enter().await;
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                // Without it small answers wait for the client's delayed acknowledgement (40 ms).
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%remote, %error, "connection lost while accepting");
                    continue;
                }
                return (stream, remote, permit);
            }
            Err(error) if is_exhaustion(&error) => {
                tracing::warn!(%error, "cannot accept; pausing");
                tokio::time::sleep(PAUSE_WITHOUT_DESCRIPTORS).await;
            }
            Err(error) => tracing::debug!(%error, "connection lost while accepting"),
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}
