//! One connection to an endpoint, from its address to a client that can send. A full backlog of a unix socket shows as
//! "try again", at once: that is a busy app, not a broken one, so it is asked again until the deadline.

use std::{io, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
    time::{Instant, sleep, timeout_at},
};

use super::{Address, Endpoint, Protocol, Transport, client::Client, stream::Stream};
use crate::net::proxy_protocol::{Header, encode};

const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Why there is no connection. Nothing has been sent in any of these cases.
#[derive(Clone, Debug)]
pub enum ConnectError {
    /// Nobody listens there.
    Refused(String),
    TimedOut,
    Failed(String),
    /// The connection stands, and its other end is not who it should be, or speaks something else.
    Tls(String),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A socket file that is not there is what a refused connect is on TCP.
            io::ErrorKind::ConnectionRefused => Self::Refused("connection refused".to_owned()),
            io::ErrorKind::NotFound => Self::Refused("no such socket".to_owned()),
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// What a new connection is for.
#[derive(Clone)]
pub struct Order {
    pub transport: Arc<Transport>,
    pub protocol: Protocol,
    pub timeout: Duration,
    /// What the PROXY protocol says, where the transport speaks it.
    pub header: Header,
}

/// Opens the socket.
async fn open(address: &Address) -> io::Result<Stream> {
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

/// Opens a connection and whatever comes before HTTP on it; used by requests and by probes. The caller sets the
/// deadline.
pub(super) async fn dial(
    address: &Address,
    tls_name: Option<&ServerName<'static>>,
    order: &Order,
) -> Result<Stream, ConnectError> {
    let mut stream = open(address).await?;
    if let Some(form) = order.transport.proxy_protocol() {
        let header = encode(form, order.header);
        stream.write_all(&header).await?;
    }
    match (stream, tls_name) {
        (Stream::Tcp(stream), Some(name)) => {
            let connector = order.transport.connector(order.protocol).map_err(ConnectError::Tls)?;
            let stream = connector
                .connect(name.clone(), stream)
                .await
                .map_err(|error| ConnectError::Tls(format!("TLS with {}: {error}", name.to_str())))?;
            let spoken = stream.get_ref().1.alpn_protocol();
            if order.protocol == Protocol::Http2 && spoken != Some(b"h2") {
                return Err(ConnectError::Tls(format!("{} does not offer HTTP/2 (ALPN h2)", name.to_str())));
            }
            Ok(Stream::Tls(Box::new(stream)))
        }
        (stream, _) => Ok(stream),
    }
}

/// The address, and its alternates when it refuses, within the order's time. `streams` is how many are thought to be
/// allowed until the other end has said so.
pub(super) async fn connect(endpoint: &Endpoint, order: &Order, streams: usize) -> Result<Client, ConnectError> {
    let deadline = Instant::now() + order.timeout;
    let within = async |address: &Address| {
        let opening = async {
            Client::on(dial(address, endpoint.tls_name.as_ref(), order).await?, order.protocol, streams).await
        };
        timeout_at(deadline, opening).await.unwrap_or(Err(ConnectError::TimedOut))
    };
    let mut client = within(&endpoint.address).await;
    for alternate in &endpoint.alternates {
        if !matches!(client, Err(ConnectError::Refused(_))) {
            break;
        }
        client = within(&Address::Tcp(*alternate)).await;
    }
    client
}
