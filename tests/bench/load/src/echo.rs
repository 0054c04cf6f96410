//! An upstream for WebSockets: it echoes small frames. Its clients are ours, so it knows the one key they send.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::spawn_local,
};

/// The key that every handshake of ours has, and the answer that goes with it (RFC 6455, section 1.3).
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPTED: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// More than any head that arrives here; what is bigger is not ours.
const HEAD_MAX: usize = 16 * 1024;
/// A frame that arrives is at most this long with its header.
const FRAME_MAX: usize = 131;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    address: SocketAddr,
}

pub(crate) async fn run(options: Options) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(options.address)?;
    let listener = socket.listen(4096)?;
    loop {
        let (tcp, _) = listener.accept().await?;
        // Errors are the other side's business: it counts them.
        spawn_local(async move { serve(tcp).await.ok() });
    }
}

async fn serve(mut tcp: TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let head = head(&mut tcp).await?;
    if !head.to_ascii_lowercase().contains("upgrade: websocket") {
        return tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPTED}\r\n\r\n"
    );
    tcp.write_all(answer.as_bytes()).await?;
    loop {
        tcp.readable().await?;
        echo(&mut tcp).await?;
    }
}

async fn head(tcp: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > HEAD_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(tcp.read_u8().await?);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

/// One frame with at most 125 bytes, unmasked and sent back. A farewell is echoed too, and ends the connection.
async fn echo(tcp: &mut TcpStream) -> io::Result<()> {
    let (first, second) = (tcp.read_u8().await?, tcp.read_u8().await?);
    let length = usize::from(second & 0x7f);
    if length > 125 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        tcp.read_exact(&mut mask).await?;
    }
    let mut frame = [0; FRAME_MAX];
    frame[0] = first;
    frame[1] = second & 0x7f;
    let payload = &mut frame[2..2 + length];
    tcp.read_exact(payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    tcp.write_all(&frame[..2 + length]).await?;
    if first & 0x0f == 8 { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
}
