//! What a client says first, read before it is decided how to answer. The bytes are kept: the connection that answers reads
//! them once more.

use std::io;

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A hello with a post-quantum share is not much shorter than 2 KiB.
const READ_BYTES: usize = 4 << 10;

/// Why a hello is none, and what the client is told about it.
struct Nonsense(io::Error, Vec<u8>);

pub(in super::super) async fn hello<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S) -> io::Result<(Vec<u8>, Accepted)> {
    let (mut acceptor, mut bytes) = (Acceptor::default(), Vec::new());
    loop {
        let seen = bytes.len();
        bytes.reserve_exact(READ_BYTES);
        if io.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match listen(&mut acceptor, &bytes[seen..]) {
            Ok(Some(accepted)) => return Ok((bytes, accepted)),
            Ok(None) => {}
            Err(Nonsense(error, alert)) => {
                // The client is gone either way.
                let _ = io.write_all(&alert).await;
                let _ = io.flush().await;
                return Err(error);
            }
        }
    }
}

/// The acceptor bounds what it takes before it knows: nothing but one handshake message, and that up to 64 KiB.
fn listen(acceptor: &mut Acceptor, mut fresh: &[u8]) -> Result<Option<Accepted>, Nonsense> {
    while !fresh.is_empty() {
        let count = acceptor.read_tls(&mut fresh).map_err(|error| Nonsense(error, Vec::new()))?;
        if count == 0 {
            return Err(Nonsense(io::ErrorKind::InvalidData.into(), Vec::new()));
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => return Ok(Some(accepted)),
            Err((error, alert)) => {
                return Err(Nonsense(io::Error::new(io::ErrorKind::InvalidData, error), told(alert)));
            }
        }
    }
    Ok(None)
}

fn told(mut alert: AcceptedAlert) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A vector takes everything.
    let _ = alert.write_all(&mut bytes);
    bytes
}
