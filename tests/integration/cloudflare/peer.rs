//! A peer that stands somewhere, and what it is answered.

use std::{io, net::IpAddr, sync::Arc};

use harness::{Daemon, wait};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// In the ranges of Cloudflare that are built in.
pub(crate) const CLOUDFLARE: &str = "104.16.0.1";
pub(crate) const CLOUDFLARE_V6: &str = "2606:4700::1";
pub(crate) const STRANGER: &str = "198.51.100.1";

/// `[server]` for peers that stand anywhere; the API is nowhere.
pub(crate) const SERVER: &str = "[server]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\n";

/// A connection of somebody at this address to `{port}` (1), `{port2}` ...
pub(crate) async fn from(daemon: &Daemon, port: usize, peer: &str) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address(port)).await.unwrap();
    let line = match peer.parse::<IpAddr>().unwrap() {
        IpAddr::V4(_) => format!("PROXY TCP4 {peer} 192.0.2.1 5555 443\r\n"),
        IpAddr::V6(_) => format!("PROXY TCP6 {peer} 2001:db8::1 5555 443\r\n"),
    };
    stream.write_all(line.as_bytes()).await.unwrap();
    stream
}

pub(crate) async fn secure(
    daemon: &Daemon,
    peer: &str,
    host: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(config.clone()).connect(name, from(daemon, 2, peer).await).await
}

/// One request on an open connection: the head of the answer, in lower case, and its body.
pub(crate) async fn ask<S>(stream: &mut S, request: &str) -> Option<(String, String)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await.ok()?;
    timeout(wait::SOON, answer(stream)).await.expect("it is answered or closed")
}

/// `None`: the connection was closed.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head.lines().find_map(|it| it.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some((head, body.to_owned()));
            }
        }
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    }
}

pub(crate) fn get(path: &str, host: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n")
}

/// The lines of the access log, when there are so many.
pub(crate) async fn logged(daemon: &Daemon, count: usize) -> Vec<serde_json::Value> {
    let path = daemon.dir().join("access.log");
    let read = async || std::fs::read_to_string(&path).unwrap_or_default();
    let text = wait::for_value(wait::SOON, "the lines are written", read, |it| it.lines().count() >= count).await;
    text.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

pub(crate) const LOG: &str =
    "[logging.access_log]\nenabled = true\nformat = \"json\"\npath = \"{dir}/access.log\"\nbuffer_size = 1\n";

/// The API is nowhere.
pub(crate) const NOWHERE: &str = "api_base = \"http://127.0.0.1:1/\"\n";
