//! One connection to an endpoint, from its address to a client that can send. A full backlog of a unix socket shows as
//! "try again", at once: that is a busy app, not a broken one, so it is asked again until the deadline.

use std::{io, time::Duration};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep, timeout_at},
};

use super::{Address, Endpoint};
use crate::exchange::Body;

const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Why there is no connection. Nothing has been sent in any of these cases.
#[derive(Debug)]
pub enum ConnectError {
    /// Nobody listens there.
    Refused(io::Error),
    TimedOut,
    Failed(io::Error),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A socket file that is not there is what a refused connect is on TCP.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::Refused(error),
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Failed(error),
        }
    }
}

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Opens the socket; used by requests and by probes.
pub(super) async fn open(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        Address::Unix(path) => loop {
            match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BUSY_PAUSE).await,
                other => return other.map(Stream::Unix),
            }
        },
    }
}

pub(super) async fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<SendRequest<Body>, ConnectError> {
    let deadline = Instant::now() + timeout;
    let mut opened = timeout_at(deadline, open(&endpoint.address)).await.map_err(|_| ConnectError::TimedOut)?;
    for alternate in &endpoint.alternates {
        if !opened.as_ref().is_err_and(|it| it.kind() == io::ErrorKind::ConnectionRefused) {
            break;
        }
        let address = Address::Tcp(*alternate);
        opened = timeout_at(deadline, open(&address)).await.map_err(|_| ConnectError::TimedOut)?;
    }
    match opened? {
        Stream::Tcp(stream) => handshake(stream).await,
        Stream::Unix(stream) => handshake(stream).await,
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
) -> Result<SendRequest<Body>, ConnectError> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| ConnectError::Failed(io::Error::other(error)))?;
    // Its errors reach whoever waits for the response; what is left is the close of an idle connection.
    tokio::task::spawn_local(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}
