//! New connections: each one asks once, reads to the end, and closes.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use clap::ValueEnum;
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    Aim,
    result::Count,
    tls::{self, Sessions},
};

/// How long one connection may take: longer than any server that works.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    aim: Aim,
    #[arg(long, value_enum, default_value = "plain")]
    handshake: Handshake,
}

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
enum Handshake {
    Plain,
    Full,
    Resumed,
}

pub(crate) async fn run(options: Options) -> io::Result<()> {
    let count = Rc::new(Count::until(options.aim.seconds));
    let request: Rc<[u8]> =
        format!("GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", options.aim.path)
            .into_bytes()
            .into();
    let mut tasks = JoinSet::new();
    for _ in 0..options.aim.connections {
        // Sessions of its own for each, as clients are many.
        let connector = connector(options.handshake)?;
        let (aim, count, request) = (options.aim.clone(), count.clone(), request.clone());
        tasks.spawn_local(async move {
            if options.handshake == Handshake::Resumed {
                // The first connection brings the ticket and does not count.
                let _ = timeout(PATIENCE, once(&aim, connector.as_ref(), &request)).await;
            }
            while !count.is_over() {
                match timeout(PATIENCE, once(&aim, connector.as_ref(), &request)).await {
                    Ok(Ok(resumed)) if resumed == (options.handshake == Handshake::Resumed) => count.answered(),
                    Ok(Ok(_)) => count.failed("another kind of handshake than was asked for"),
                    Ok(Err(error)) => count.failed(error),
                    Err(_) => count.failed("a connection that took too long"),
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    count.tell(&[])
}

fn connector(handshake: Handshake) -> io::Result<Option<TlsConnector>> {
    let sessions = match handshake {
        Handshake::Plain => return Ok(None),
        Handshake::Full => Sessions::Fresh,
        Handshake::Resumed => Sessions::Kept,
    };
    let client = tls::client(b"http/1.1", sessions).map_err(io::Error::other)?;
    Ok(Some(TlsConnector::from(Arc::new(client))))
}

/// One connection; whether its session was resumed.
async fn once(aim: &Aim, connector: Option<&TlsConnector>, request: &[u8]) -> io::Result<bool> {
    let tcp = TcpStream::connect(aim.address).await?;
    tcp.set_nodelay(true)?;
    let Some(connector) = connector else {
        let mut tcp = tcp;
        exchange(&mut tcp, request).await?;
        return Ok(false);
    };
    let mut stream = connector.connect(tls::name(), tcp).await?;
    exchange(&mut stream, request).await?;
    Ok(stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed))
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> io::Result<()> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut answer = Vec::with_capacity(4096);
    match stream.read_to_end(&mut answer).await {
        // A server that closes TCP without a farewell in TLS has answered all the same.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err(io::Error::other("not answered with 200")) }
}
