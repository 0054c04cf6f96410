//! A plain HTTP/1.1 client: one request per connection, every wait with a deadline.
//!
//! It never retries and never follows a redirect: what the daemon said is what the test sees.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long one exchange may take before the client gives up.
pub(crate) const EXCHANGE: Duration = Duration::from_secs(60);

/// One answer, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// The body as text; invalid UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// A header as text, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends GET `path` with `Host: host` to `address`.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> io::Result<Reply> {
    let request = Request::get(path).header(header::HOST, host).body(Bytes::new()).map_err(io::Error::other)?;
    self::request(address, request).await
}

/// Sends `request` on a connection of its own. A missing `Host` becomes the address.
pub async fn request(address: SocketAddr, mut request: Request<Bytes>) -> io::Result<Reply> {
    if !request.headers().contains_key(header::HOST) {
        let host = address.to_string().parse().map_err(io::Error::other)?;
        request.headers_mut().insert(header::HOST, host);
    }
    timeout(EXCHANGE, exchange(address, request.map(Full::new))).await?
}

async fn exchange(address: SocketAddr, request: Request<Full<Bytes>>) -> io::Result<Reply> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    driver.abort();
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
}

/// Writes `bytes` on a fresh connection and reads until the peer closes or nothing came for `patience`.
pub async fn raw_exchange(address: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    // A peer may answer and close before it has read everything; what it said still counts.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while let Ok(Ok(count)) = timeout(patience, stream.read(&mut chunk)).await {
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..count]);
    }
    answer
}
