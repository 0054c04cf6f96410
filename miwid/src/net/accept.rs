//! Accepting: no more than the limit, and with a pause when the process has run out of descriptors.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::{
    io::unix::AsyncFd,
    net::TcpStream,
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

    /// At once or not at all: datagrams cannot wait in a backlog.
    pub fn try_enter(&self) -> Option<Permit> {
        self.0.clone().try_acquire_owned().ok().map(Permit)
    }

    async fn enter(&self) -> Permit {
        let permit = self.0.clone().acquire_owned().await;
        Permit(permit.expect("the semaphore is never closed"))
    }
}

/// One listening socket of one worker.
pub struct Acceptor {
    listener: AsyncFd<TcpListener>,
    local: Option<SocketAddr>,
    admission: Admission,
}

impl Acceptor {
    pub fn new(listener: TcpListener, admission: Admission) -> io::Result<Self> {
        // Without it small answers wait for the client's delayed acknowledgement (40 ms). Whoever is accepted inherits it.
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        let local = listener.local_addr().ok().filter(|it| !it.ip().to_canonical().is_unspecified());
        #[expect(deprecated, reason = "its replacement is unsafe, for fds that may change; a listener's never does")]
        let listener = AsyncFd::new(listener)?;
        Ok(Self { listener, local, admission })
    }

    /// The address that every client came to, if there is only one.
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// The next connection. A place is taken only when somebody is at the door: a listener that took one and then waited
    /// would keep it from the others. Errors of a single connection are skipped; a lack of descriptors waits.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr, Permit)> {
        loop {
            let mut ready = self.listener.readable().await?;
            let permit = self.admission.enter().await;
            match ready.try_io(|it| accept_one(it.get_ref())) {
                Ok(Ok((stream, remote))) => match TcpStream::from_std(stream) {
                    Ok(stream) => return Ok((stream, remote, permit)),
                    Err(error) => tracing::debug!(%remote, %error, "connection lost while accepting"),
                },
                Ok(Err(error)) if is_exhaustion(&error) => {
                    tracing::warn!(%error, "cannot accept; pausing");
                    tokio::time::sleep(PAUSE_WITHOUT_DESCRIPTORS).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "connection lost while accepting"),
                // Somebody was at the door and has gone.
                Err(_) => {}
            }
        }
    }
}

fn accept_one(listener: &TcpListener) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let (stream, remote) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let remote = remote.ok_or_else(|| io::Error::other("a connection without an address"))?;
    let remote = SocketAddr::try_from(remote).map_err(|_| io::Error::other("a connection that is not IP"))?;
    Ok((stream.into(), remote))
}

fn is_exhaustion(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}
