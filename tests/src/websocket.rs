//! A WebSocket client over plain TCP.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use http::{Request, header};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, handshake::client::generate_key},
};

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open WebSocket.
pub struct WebSocket {
    stream: WebSocketStream<TcpStream>,
}

/// What came next on a WebSocket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Received {
    Text(String),
    /// A close frame with its code.
    Closed(u16),
    /// The connection ended without a close frame.
    Cut,
    /// Nothing within the deadline.
    Silence,
}

impl WebSocket {
    /// Opens `ws://host/path` at `address`.
    pub async fn connect(address: SocketAddr, host: &str, path: &str) -> io::Result<Self> {
        let request = Request::get(format!("ws://{host}{path}"))
            .header(header::HOST, host)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key())
            .body(())
            .map_err(io::Error::other)?;
        let tcp = TcpStream::connect(address).await?;
        let (stream, _) = timeout(PATIENCE, client_async(request, tcp)).await?.map_err(io::Error::other)?;
        Ok(Self { stream })
    }

    /// Sends a text and returns whether it left.
    pub async fn send(&mut self, text: &str) -> bool {
        self.stream.send(Message::text(text)).await.is_ok()
    }

    /// The next thing that matters: text, the end, or silence.
    pub async fn receive(&mut self) -> Received {
        self.receive_within(PATIENCE).await
    }

    /// As `receive`, with a deadline of your own.
    pub async fn receive_within(&mut self, patience: Duration) -> Received {
        loop {
            match timeout(patience, self.stream.next()).await {
                Err(_) => return Received::Silence,
                Ok(Some(Ok(Message::Text(text)))) => return Received::Text(text.to_string()),
                Ok(Some(Ok(Message::Close(frame)))) => {
                    return Received::Closed(frame.map_or(1005, |it| u16::from(it.code)));
                }
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) => return Received::Cut,
            }
        }
    }

    /// Sends `text` and panics unless the same text comes back.
    pub async fn echo(&mut self, text: &str) {
        assert!(self.send(text).await, "the WebSocket no longer takes a message");
        assert_eq!(self.receive().await, Received::Text(text.to_owned()));
    }

    /// Whether the echo still works, without a panic.
    pub async fn is_alive(&mut self) -> bool {
        self.send("alive?").await && self.receive().await == Received::Text("alive?".to_owned())
    }
}
