//! The strict origin. It says what it thinks of a wrong frame with the Close of RFC 6455, 7.4.1, and then waits until the
//! client has ended, too: a socket that is closed over unread bytes is reset, and the reset could overtake the Close.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use harness::wait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

pub struct Echo {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Echo {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
        let address = listener.local_addr().expect("a bound address");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { address, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream) {
    let Ok(mut socket) = accept_async(stream).await else { return };
    if let Some(code) = answer(&mut socket).await {
        let _ = socket.close(Some(CloseFrame { code, reason: "".into() })).await;
    }
    let _ = socket.flush().await;
    let stream = socket.get_mut();
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let _ = timeout(wait::SOON, stream.read_to_end(&mut rest)).await;
}

/// Until the client has said goodbye; what is to be said to one that has broken the rules.
async fn answer(socket: &mut WebSocketStream<TcpStream>) -> Option<CloseCode> {
    loop {
        match socket.next().await? {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).await.ok()?,
            Ok(_) => {}
            Err(Error::Utf8(_)) => return Some(CloseCode::Invalid),
            Err(Error::Protocol(what)) if !is_an_end(&what) => return Some(CloseCode::Protocol),
            Err(_) => return None,
        }
    }
}

/// An end without a Close is no fault to answer: there is nobody left to hear of it.
fn is_an_end(what: &tokio_tungstenite::tungstenite::error::ProtocolError) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    matches!(what, ProtocolError::ResetWithoutClosingHandshake)
}
