//! Pipes that give and take as little as they like, and a client whose every byte is in our hands.

use std::{
    io::{self, Read, Write},
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    time::timeout,
};

use super::super::{TlsStream, hello};

pub(super) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
pub(super) const ALERT: u8 = 21;

pub(super) static PAIR: LazyLock<(CertificateDer<'static>, Vec<u8>)> = LazyLock::new(|| {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    (leaf.der().clone(), key.serialize_der())
});

pub(super) fn server() -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(PAIR.1.clone()).unwrap();
    let mut config = builder.with_single_cert(vec![PAIR.0.clone()], key).unwrap();
    config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    Arc::new(config)
}

pub(super) fn client(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(PAIR.0.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

pub(super) fn name() -> ServerName<'static> {
    ServerName::try_from("a.test").unwrap()
}

pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("in time")
}

pub(super) async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    mut io: S,
    config: Arc<ServerConfig>,
) -> io::Result<TlsStream<S>> {
    let (bytes, accepted) = hello(&mut io).await?;
    drop(accepted);
    TlsStream::accept(io, config, bytes).await
}

/// Bytes that differ where it matters.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|it| (it % 251) as u8).collect()
}

/// Gives and takes so many bytes at most, and lets everybody wait once before each time.
pub(super) struct Stingy<S> {
    io: S,
    bytes: usize,
    has_waited: [bool; 2],
}

impl<S> Stingy<S> {
    pub(super) fn new(io: S, bytes: usize) -> Self {
        Self { io, bytes, has_waited: [false; 2] }
    }

    fn poll_turn(&mut self, way: usize, cx: &Context<'_>) -> Poll<()> {
        self.has_waited[way] = !self.has_waited[way];
        if !self.has_waited[way] {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stingy<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_turn(0, cx));
        let mut bytes = vec![0; self.bytes.min(buf.remaining())];
        let mut some = ReadBuf::new(&mut bytes);
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, &mut some))?;
        buf.put_slice(some.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stingy<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_turn(1, cx));
        let some = &bytes[..self.bytes.min(bytes.len())];
        Pin::new(&mut self.io).poll_write(cx, some)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A client whose every byte is in our hands.
pub(super) struct Client {
    pub(super) tls: ClientConnection,
    pub(super) io: DuplexStream,
    /// What the server has sent, as it came, since it was last looked at.
    pub(super) heard: Vec<u8>,
}

impl Client {
    pub(super) fn new(config: Arc<ClientConfig>, io: DuplexStream) -> Self {
        Self { tls: ClientConnection::new(config, name()).unwrap(), io, heard: Vec::new() }
    }

    /// What it would send now.
    pub(super) fn said(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    pub(super) async fn send(&mut self) {
        let bytes = self.said();
        self.io.write_all(&bytes).await.unwrap();
    }

    pub(super) async fn write(&mut self, data: &[u8]) {
        for piece in data.chunks(16 << 10) {
            self.tls.writer().write_all(piece).unwrap();
            self.send().await;
        }
    }

    /// Hears once what the server says; false: it says nothing more.
    pub(super) async fn hear(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = self.io.read(&mut bytes).await.unwrap();
        self.heard.extend_from_slice(&bytes[..count]);
        let mut fresh = &bytes[..count];
        while !fresh.is_empty() {
            self.tls.read_tls(&mut fresh).unwrap();
            self.tls.process_new_packets().unwrap();
        }
        count > 0
    }

    pub(super) async fn shake(&mut self) {
        loop {
            self.send().await;
            if !self.tls.is_handshaking() {
                return;
            }
            assert!(self.hear().await, "it is still shaking hands");
        }
    }

    pub(super) async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        let mut got = 0;
        while got < length {
            match self.tls.reader().read(&mut data[got..]) {
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(self.hear().await, "more has to come")
                }
                Err(error) => panic!("{error}"),
            }
        }
        data
    }
}

/// A client and a server that have shaken hands, and a pipe of so many bytes between them.
pub(super) async fn pair(
    version: &'static SupportedProtocolVersion,
    bytes: usize,
) -> (Client, TlsStream<DuplexStream>) {
    let (near, far) = duplex(bytes);
    let mut client = Client::new(client(version), far);
    let (stream, ()) = soon(async { tokio::join!(shake(near, server()), client.shake()) }).await;
    (client, stream.unwrap())
}

/// Types and lengths of records.
pub(super) fn framed(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        records.push((*kind, length));
        bytes = rest.get(length..).unwrap_or_default();
    }
    records
}

/// One handshake message in records of so many bytes.
pub(super) fn in_records(record: &[u8], bytes: usize) -> Vec<u8> {
    let frame = |it: &[u8]| [&[22, 3, 1][..], &(it.len() as u16).to_be_bytes(), it].concat();
    record[5..].chunks(bytes).flat_map(frame).collect()
}
