//! Connections that stay open and silent after one exchange, so that what a server keeps for each can be seen.
//!
//! Standard input has a number a line: how many are to be open from now on. When it ends, so do they.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::ValueEnum;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    echo::{ACCEPTED, KEY},
    result,
    tls::{self, Sessions},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that are being opened at once: fewer than any backlog.
const AT_ONCE: usize = 64;
/// Connections from one address: each has a port of its own, of which there are some 28,000.
const FROM_ONE: usize = 20_000;
/// A text of five bytes, masked with zeros: the mask is what a client has to have, not a secret.
const FRAME: &[u8] = b"\x81\x85\0\0\0\0hello";
const ECHOED: &[u8] = b"\x81\x05hello";

#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long, value_enum)]
    what: What,
    #[arg(long, default_value = "/1k.html")]
    path: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Plain,
    Tls,
    /// WebSockets; each has sent a message and got it back.
    Ws,
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

type Held = Box<dyn Stream>;

pub(crate) async fn run(options: Options) -> io::Result<()> {
    let client = tls::client(b"http/1.1", Sessions::Fresh).map_err(io::Error::other)?;
    let opener =
        Arc::new(Opener { options, connector: TlsConnector::from(Arc::new(client)), begun: AtomicUsize::new(0) });
    let mut wanted = wishes();
    let mut held: Vec<Held> = Vec::new();
    while let Some(count) = wanted.recv().await {
        let error = fill(&mut held, count, &opener).await.err().map(|it| it.to_string());
        result::print(&json!({ "open": held.len(), "error": error }))?;
    }
    Ok(())
}

/// The numbers on standard input. A thread of its own reads them, for it blocks.
fn wishes() -> mpsc::Receiver<usize> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            let Ok(count) = line.trim().parse() else { return };
            if sender.blocking_send(count).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn fill(held: &mut Vec<Held>, count: usize, opener: &Arc<Opener>) -> io::Result<()> {
    let (mut opening, mut begun) = (JoinSet::new(), held.len());
    while held.len() < count {
        while begun < count && opening.len() < AT_ONCE {
            let opener = opener.clone();
            opening.spawn_local(async move { timeout(PATIENCE, opener.open()).await? });
            begun += 1;
        }
        match opening.join_next().await {
            Some(Ok(opened)) => held.push(opened?),
            Some(Err(error)) => return Err(io::Error::other(error)),
            None => return Err(io::Error::other("nothing left to open")),
        }
    }
    Ok(())
}

struct Opener {
    options: Options,
    connector: TlsConnector,
    begun: AtomicUsize,
}

// === impl Opener ===

impl Opener {
    async fn open(&self) -> io::Result<Held> {
        let mut tcp = self.connect().await?;
        tcp.set_nodelay(true)?;
        match self.options.what {
            What::Plain => {
                self.ask(&mut tcp).await?;
                Ok(Box::new(tcp))
            }
            What::Tls => {
                let mut stream = self.connector.connect(tls::name(), tcp).await?;
                self.ask(&mut stream).await?;
                Ok(Box::new(stream))
            }
            What::Ws => {
                self.upgrade(&mut tcp).await?;
                Ok(Box::new(tcp))
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let address = self.options.address;
        let host = 1 + self.begun.fetch_add(1, Relaxed) / FROM_ONE;
        if address.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) || host == 1 {
            return TcpStream::connect(address).await;
        }
        let host = u8::try_from(host).map_err(io::Error::other)?;
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into())?;
        socket.connect(address).await
    }

    /// One exchange whose answer has a length, read to its last byte.
    async fn ask(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
        let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.options.path);
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut reader = BufReader::with_capacity(4096, stream);
        let mut line = String::new();
        let mut length = 0;
        reader.read_line(&mut line).await?;
        expect(line.starts_with("HTTP/1.1 200"), &line)?;
        while !line.trim().is_empty() {
            line.clear();
            reader.read_line(&mut line).await?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).await.map(|_| ())
    }

    async fn upgrade(&self, tcp: &mut TcpStream) -> io::Result<()> {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        tcp.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            // Byte by byte: nothing behind the head may be taken, and this is not what is measured.
            head.push(tcp.read_u8().await?);
        }
        let text = String::from_utf8_lossy(&head);
        expect(text.starts_with("HTTP/1.1 101") && text.contains(ACCEPTED), &text)?;
        tcp.write_all(FRAME).await?;
        let mut echo = [0; ECHOED.len()];
        tcp.read_exact(&mut echo).await?;
        expect(echo == ECHOED, "another message came back")
    }
}

fn expect(condition: bool, otherwise: &str) -> io::Result<()> {
    if condition { Ok(()) } else { Err(io::Error::other(format!("unexpected: {otherwise}"))) }
}
