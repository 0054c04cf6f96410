//! Against the client of the library that we build on, over pipes that give and take as little as they like.
#![allow(clippy::unwrap_used)]

use std::{
    io::{self, IoSlice, Read, Write},
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{TlsStream, hello, session::SEALED_MAX};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
const ALERT: u8 = 21;

static PAIR: LazyLock<(CertificateDer<'static>, Vec<u8>)> = LazyLock::new(|| {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    (leaf.der().clone(), key.serialize_der())
});

fn server() -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(PAIR.1.clone()).unwrap();
    let mut config = builder.with_single_cert(vec![PAIR.0.clone()], key).unwrap();
    config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    Arc::new(config)
}

fn client(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(PAIR.0.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn name() -> ServerName<'static> {
    ServerName::try_from("a.test").unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("in time")
}

async fn shake<S: AsyncRead + AsyncWrite + Unpin>(mut io: S, config: Arc<ServerConfig>) -> io::Result<TlsStream<S>> {
    let (bytes, accepted) = hello(&mut io).await?;
    assert_eq!(accepted.client_hello().server_name(), Some("a.test"));
    drop(accepted);
    TlsStream::accept(io, config, bytes).await
}

/// Bytes that differ where it matters.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|it| (it % 251) as u8).collect()
}

/// Gives and takes so many bytes at most, and lets everybody wait once before each time.
struct Stingy<S> {
    io: S,
    bytes: usize,
    has_waited: [bool; 2],
}

impl<S> Stingy<S> {
    fn new(io: S, bytes: usize) -> Self {
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
struct Client {
    tls: ClientConnection,
    io: DuplexStream,
    /// What the server has sent, as it came, since it was last looked at.
    heard: Vec<u8>,
}

impl Client {
    fn new(config: Arc<ClientConfig>, io: DuplexStream) -> Self {
        Self { tls: ClientConnection::new(config, name()).unwrap(), io, heard: Vec::new() }
    }

    /// What it would send now.
    fn said(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    async fn send(&mut self) {
        let bytes = self.said();
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn write(&mut self, data: &[u8]) {
        for piece in data.chunks(16 << 10) {
            self.tls.writer().write_all(piece).unwrap();
            self.send().await;
        }
    }

    /// Hears once what the server says; false: it says nothing more.
    async fn hear(&mut self) -> bool {
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

    async fn shake(&mut self) {
        loop {
            self.send().await;
            if !self.tls.is_handshaking() {
                return;
            }
            assert!(self.hear().await, "it is still shaking hands");
        }
    }

    async fn read(&mut self, length: usize) -> Vec<u8> {
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
async fn pair(version: &'static SupportedProtocolVersion, bytes: usize) -> (Client, TlsStream<DuplexStream>) {
    let (near, far) = duplex(bytes);
    let mut client = Client::new(client(version), far);
    let (stream, ()) = soon(async { tokio::join!(shake(near, server()), client.shake()) }).await;
    (client, stream.unwrap())
}

#[tokio::test]
async fn all_data_comes_through_whatever_its_size_and_in_whatever_pieces() {
    for version in VERSIONS {
        for bytes in [1, 7, 1000, usize::MAX] {
            for size in [0, 1, 16_383, 16_384, 16_385, 1 << 20] {
                if size < 1 << 20 || bytes >= 1000 {
                    soon(echoed(version, bytes, size)).await;
                }
            }
        }
    }
}

/// The client's data, back to it, and then the end in both directions.
async fn echoed(version: &'static SupportedProtocolVersion, bytes: usize, size: usize) {
    let (near, far) = duplex(64 << 10);
    let data = pattern(size);
    let serve = async {
        let mut stream = shake(Stingy::new(near, bytes), server()).await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        stream.write_all(&got).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(stream.kept(), 0, "{bytes} {size}");
    };
    let ask = async {
        let mut stream = TlsConnector::from(client(version)).connect(name(), far).await.unwrap();
        stream.write_all(&data).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        got
    };
    let ((), got) = tokio::join!(serve, ask);
    assert!(got == data, "{version:?}, {bytes} at a time, {size} bytes: {} came back", got.len());
}

#[tokio::test]
async fn both_directions_go_on_at_once() {
    const SIZE: usize = 1 << 20;
    for version in VERSIONS {
        let (near, far) = duplex(3000);
        let (ours, theirs) = soon(async {
            tokio::join!(shake(near, server()), TlsConnector::from(client(version)).connect(name(), far))
        })
        .await;
        let mut tasks = tokio::task::JoinSet::new();
        let (read, write) = split(ours.unwrap());
        run(&mut tasks, read, write);
        let (read, write) = split(theirs.unwrap());
        run(&mut tasks, read, write);
        while let Some(done) = soon(tasks.join_next()).await {
            done.unwrap();
        }
    }

    fn run<R, W>(tasks: &mut tokio::task::JoinSet<()>, mut read: R, mut write: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        tasks.spawn(async move {
            write.write_all(&pattern(SIZE)).await.unwrap();
            write.shutdown().await.unwrap();
        });
        tasks.spawn(async move {
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.unwrap();
            assert!(got == pattern(SIZE), "{}", got.len());
        });
    }
}

#[tokio::test]
async fn data_in_parts_goes_in_full_records() {
    let cases: [(&[usize], &[usize]); 8] = [
        (&[0, 0], &[]),
        (&[5], &[5]),
        (&[0, 5, 0], &[5]),
        (&[200, 800], &[1000]),
        (&[200, 40_000], &[16_384, 16_384, 7432]),
        (&[20_000, 20_000], &[16_384, 16_384, 7232]),
        (&[16_384, 1], &[16_384, 1]),
        (&[1; 100], &[100]),
    ];
    for (lengths, records) in cases {
        let (mut client, mut stream) = pair(&TLS13, 1 << 20).await;
        client.heard.clear();
        let data = pattern(lengths.iter().sum());
        let mut left = data.as_slice();
        let parts: Vec<&[u8]> = lengths.iter().map(|it| left.split_off(..*it).unwrap()).collect();
        let parts: Vec<IoSlice<'_>> = parts.into_iter().map(IoSlice::new).collect();
        let written = soon(stream.write_vectored(&parts)).await.unwrap();
        assert_eq!(written, data.len(), "{lengths:?}");
        assert!(soon(client.read(written)).await == data, "{lengths:?}");
        // A type and a tag are behind the data. The tickets may come before it.
        let heard: Vec<usize> = framed(&client.heard).iter().map(|it| it.1 - 17).collect();
        assert!(heard.ends_with(records), "{heard:?}");
    }
}

/// Types and lengths of records.
fn framed(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        records.push((*kind, length));
        bytes = rest.get(length..).unwrap_or_default();
    }
    records
}

#[tokio::test]
async fn no_more_is_taken_than_is_sealed_and_nothing_more_before_that_is_sent() {
    let (mut client, mut stream) = pair(&TLS13, 8 << 10).await;
    let data = pattern(SEALED_MAX * 2);
    let taken = soon(stream.write(&data)).await.unwrap();
    assert_eq!(taken, SEALED_MAX);
    assert!(stream.kept() > SEALED_MAX - (8 << 10) && stream.kept() < SEALED_MAX + 1024, "{}", stream.kept());
    let again = stream.write(&data).now_or_never();
    assert!(again.is_none(), "the client takes nothing");
    assert!(stream.flush().now_or_never().is_none());
    let (flushed, got) = soon(async { tokio::join!(stream.flush(), client.read(taken)) }).await;
    flushed.unwrap();
    assert!(got == data[..taken]);
    assert_eq!(stream.kept(), 0);
}

#[tokio::test]
async fn a_client_that_wants_new_keys_is_answered_by_a_server_that_only_reads() {
    for is_slow in [false, true] {
        let (mut client, mut stream) = pair(&TLS13, 1 << 20).await;
        soon(async {
            stream.write_all(b"x").await.unwrap();
            client.read(1).await;
        })
        .await;
        client.heard.clear();
        client.tls.refresh_traffic_keys().unwrap();
        let bytes = client.said();
        if is_slow {
            // No data at all: the server still waits for it when it answers.
            client.io.write_all(&bytes).await.unwrap();
            assert!(stream.read_u8().now_or_never().is_none());
        } else {
            client.io.write_all(&bytes).await.unwrap();
            client.write(b"y").await;
            assert_eq!(soon(stream.read_u8()).await.unwrap(), b'y');
            assert!(stream.read_u8().now_or_never().is_none());
        }
        assert!(soon(client.hear()).await);
        // A handshake message of five bytes, under the old keys.
        assert_eq!(framed(&client.heard), [(23, 5 + 1 + 16)], "{is_slow}");
        assert_eq!(stream.kept(), 0);
        soon(async {
            stream.write_all(b"z").await.unwrap();
            assert_eq!(client.read(1).await, b"z");
        })
        .await;
    }
}

#[tokio::test]
async fn keys_may_change_again_and_again_amid_data() {
    let (mut client, stream) = pair(&TLS13, 4 << 10).await;
    let (mut read, mut write) = split(stream);
    let writing = tokio::spawn(async move {
        write.write_all(&pattern(1 << 20)).await.unwrap();
        write.flush().await.unwrap();
    });
    let reading = tokio::spawn(async move {
        let mut got = vec![0; 100 * 500];
        read.read_exact(&mut got).await.unwrap();
        got
    });
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    for round in 0..100_u8 {
        client.tls.refresh_traffic_keys().unwrap();
        sent.extend_from_slice(&[round; 500]);
        soon(client.write(&[round; 500])).await;
        got.extend(soon(client.read((1 << 20) / 100)).await);
    }
    got.extend(soon(client.read((1 << 20) - got.len())).await);
    assert!(got == pattern(1 << 20));
    assert!(soon(reading).await.unwrap() == sent);
    soon(writing).await.unwrap();
}

#[tokio::test]
async fn a_writer_that_waits_is_woken_whatever_the_reader_does() {
    let (mut client, stream) = pair(&TLS13, 2 << 10).await;
    let (mut read, mut write) = split(stream);
    let writing = tokio::spawn(async move {
        write.write_all(&pattern(200_000)).await.unwrap();
        write.flush().await.unwrap();
    });
    tokio::task::yield_now().await;
    assert!(!writing.is_finished(), "nobody takes it");
    let reading = tokio::spawn(async move { read.read_u8().await });
    client.tls.refresh_traffic_keys().unwrap();
    soon(client.write(b"a")).await;
    assert_eq!(soon(reading).await.unwrap().unwrap(), b'a');
    assert!(soon(client.read(200_000)).await == pattern(200_000));
    soon(writing).await.unwrap();
}

#[tokio::test]
async fn a_writer_may_write_while_nobody_takes_what_has_come() {
    for version in VERSIONS {
        for cut in [0, 1, 3, 100] {
            let (mut client, mut stream) = pair(version, 1 << 20).await;
            client.tls.writer().write_all(&pattern(50_000)).unwrap();
            let bytes = client.said();
            client.io.write_all(&bytes[..bytes.len() - cut]).await.unwrap();
            assert_eq!(soon(stream.read_u8()).await.unwrap(), 0);
            soon(async {
                stream.write_all(b"answer").await.unwrap();
                stream.flush().await.unwrap();
                assert_eq!(client.read(6).await, b"answer");
            })
            .await;
            let mut got = vec![0; 30_000];
            soon(stream.read_exact(&mut got)).await.unwrap();
            soon(stream.write_all(b"another")).await.unwrap();
            assert_eq!(soon(client.read(7)).await, b"another");
            client.io.write_all(&bytes[bytes.len() - cut..]).await.unwrap();
            let mut rest = vec![0; 19_999];
            soon(stream.read_exact(&mut rest)).await.unwrap();
            assert!([&[0][..], &got, &rest].concat() == pattern(50_000), "{version:?} {cut}");
            assert_eq!(stream.kept(), 0);
        }
    }
}

#[tokio::test]
async fn a_farewell_is_an_end_and_a_cut_is_an_error() {
    for version in VERSIONS {
        let (mut client, mut stream) = pair(version, 1 << 16).await;
        client.write(b"last").await;
        client.tls.send_close_notify();
        client.send().await;
        let mut got = Vec::new();
        soon(stream.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"last");
        assert_eq!(soon(stream.read(&mut [0; 9])).await.unwrap(), 0, "it stays the end");
        soon(stream.write_all(b"goodbye")).await.unwrap();
        assert_eq!(soon(client.read(7)).await, b"goodbye", "the other half is open");

        let (mut client, mut stream) = pair(version, 1 << 16).await;
        client.write(b"last").await;
        let bytes = {
            client.tls.writer().write_all(b"never whole").unwrap();
            client.said()
        };
        client.io.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
        client.io.shutdown().await.unwrap();
        let mut got = [0; 4];
        soon(stream.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"last");
        for _ in 0..2 {
            let cut = soon(stream.read(&mut [0; 9])).await.unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}

#[tokio::test]
async fn what_is_wrong_on_the_way_is_an_error_and_the_client_is_told() {
    for (version, spoil) in VERSIONS.into_iter().flat_map(|it| [0, 1, 3, 20].map(|spoil| (it, spoil))) {
        let (mut client, mut stream) = pair(version, 1 << 16).await;
        client.write(b"before").await;
        client.tls.writer().write_all(&pattern(500)).unwrap();
        let mut bytes = client.said();
        // The type, the version, the length or the data.
        bytes[spoil] ^= 0x7F;
        client.io.write_all(&bytes).await.unwrap();
        client.tls.writer().write_all(&pattern(20_000)).unwrap();
        let bytes = client.said();
        client.io.write_all(&bytes).await.unwrap();
        let mut got = [0; 6];
        soon(stream.read_exact(&mut got)).await.unwrap();
        for _ in 0..2 {
            let error = soon(stream.read_u8()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{version:?} {spoil}");
        }
        assert_eq!(soon(stream.write(b"x")).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        soon(stream.shutdown()).await.unwrap();
        assert_eq!(stream.kept(), 0);
        drop(stream);
        let mut heard = Vec::new();
        soon(client.io.read_to_end(&mut heard)).await.unwrap();
        let told = client
            .tls
            .read_tls(&mut heard.as_slice())
            .and_then(|_| client.tls.process_new_packets().map_err(io::Error::other));
        let told = told.unwrap_err().to_string();
        assert!(told.contains("alert"), "{version:?} {spoil}: {told}");
    }
}

#[tokio::test]
async fn an_alert_of_the_client_is_an_error() {
    let (mut client, mut stream) = pair(&TLS12, 1 << 16).await;
    // In cleartext, which nobody may say any more.
    client.io.write_all(&[ALERT, 3, 3, 0, 2, 2, 80]).await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_farewell_is_said_once_and_nothing_after_it() {
    for version in VERSIONS {
        let (mut client, mut stream) = pair(version, 1 << 16).await;
        soon(stream.write_all(b"last")).await.unwrap();
        for _ in 0..3 {
            soon(stream.shutdown()).await.unwrap();
        }
        assert_eq!(soon(stream.write(b"more")).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(soon(client.read(4)).await, b"last");
        client.heard.clear();
        while soon(client.hear()).await {}
        assert_eq!(client.tls.reader().read(&mut [0; 9]).unwrap(), 0, "{version:?}");
        // The client may go on, with new keys even, which are not answered any more.
        if version.version == TLS13.version {
            client.tls.refresh_traffic_keys().unwrap();
        }
        client.write(b"and").await;
        let mut got = [0; 3];
        soon(stream.read_exact(&mut got)).await.unwrap();
        assert_eq!(stream.kept(), 0);
        assert!(!soon(client.hear()).await, "nothing follows");
    }
}

#[tokio::test]
async fn a_farewell_waits_for_what_was_written() {
    let (mut client, mut stream) = pair(&TLS13, 1000).await;
    assert_eq!(soon(stream.write(&pattern(20_000))).await.unwrap(), 20_000);
    let (closed, got) = soon(async { tokio::join!(stream.shutdown(), client.read(20_000)) }).await;
    closed.unwrap();
    assert!(got == pattern(20_000));
    while soon(client.hear()).await {}
    assert_eq!(client.tls.reader().read(&mut [0; 9]).unwrap(), 0);
}

#[tokio::test]
async fn clients_come_back() {
    for version in VERSIONS {
        let (to, from) = (client(version), server());
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let (near, far) = duplex(64 << 10);
            let mut client = Client::new(to.clone(), far);
            let (stream, ()) = soon(async { tokio::join!(shake(near, from.clone()), client.shake()) }).await;
            let mut stream = stream.unwrap();
            assert_eq!(stream.settled().handshake_kind(), Some(expected), "{version:?}");
            assert_eq!(stream.kept(), 0, "tickets are sent with the handshake");
            soon(async {
                client.write(b"ask").await;
                stream.read_exact(&mut [0; 3]).await.unwrap();
                stream.write_all(b"answer").await.unwrap();
                client.read(6).await;
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_request_may_come_with_the_end_of_the_handshake() {
    for version in VERSIONS {
        let (near, far) = duplex(1 << 20);
        let mut client = Client::new(client(version), far);
        let ask = async {
            client.send().await;
            while client.tls.is_handshaking() {
                client.hear().await;
                if client.tls.is_handshaking() {
                    client.send().await;
                }
            }
            client.tls.writer().write_all(&pattern(40_000)).unwrap();
            client.send().await;
        };
        let (stream, ()) = soon(async { tokio::join!(shake(near, server()), ask) }).await;
        let mut got = vec![0; 40_000];
        let mut stream = stream.unwrap();
        soon(stream.read_exact(&mut got)).await.unwrap();
        assert!(got == pattern(40_000), "{version:?}");
        assert_eq!(stream.kept(), 0);
    }
}

/// One handshake message in records of so many bytes.
fn in_records(record: &[u8], bytes: usize) -> Vec<u8> {
    let frame = |it: &[u8]| [&[22, 3, 1][..], &(it.len() as u16).to_be_bytes(), it].concat();
    record[5..].chunks(bytes).flat_map(frame).collect()
}

#[tokio::test]
async fn a_hello_may_be_in_many_records() {
    for version in VERSIONS {
        for bytes in [1, 3, 100] {
            let (near, far) = duplex(1 << 20);
            let mut client = Client::new(client(version), far);
            let said = client.said();
            client.io.write_all(&in_records(&said, bytes)).await.unwrap();
            let (stream, ()) = soon(async { tokio::join!(shake(near, server()), client.shake()) }).await;
            let mut stream = stream.unwrap();
            soon(stream.write_all(b"hello")).await.unwrap();
            assert_eq!(soon(client.read(5)).await, b"hello");
        }
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_and_told_why() {
    let hello = Client::new(client(&TLS13), duplex(1).0).said();
    let endless = |length: [u8; 3]| {
        let head = [&[22, 3, 1, 0, 4, 1][..], &length].concat();
        let more = in_records(&[0; 20_005], 1);
        [head, more].concat()
    };
    let (invalid, eof) = (io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof);
    let cases: [(&str, Vec<u8>, io::ErrorKind, bool); 9] = [
        ("nothing", Vec::new(), eof, false),
        ("half a hello", hello[..hello.len() / 2].to_vec(), eof, false),
        ("a hello and no more", hello.clone(), eof, false),
        ("another protocol", b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n".to_vec(), invalid, true),
        ("a record that is too long", vec![22, 3, 1, 0xFF, 0xFF, 1], invalid, true),
        ("an alert", vec![ALERT, 3, 3, 0, 2, 2, 40], invalid, false),
        ("data", vec![23, 3, 3, 0, 2, 2, 40], invalid, false),
        ("a message that is too long", endless([0xFF; 3]), invalid, false),
        ("a message that never ends", endless([0, 0xFF, 0xFF]), invalid, false),
    ];
    for (what, bytes, kind, is_told) in cases {
        let (near, mut far) = duplex(1 << 20);
        far.write_all(&bytes).await.unwrap();
        if kind == eof {
            far.shutdown().await.unwrap();
        }
        let refused = soon(shake(near, server())).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), kind, "{what}: {refused}");
        let mut heard = Vec::new();
        soon(far.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard.first() == Some(&ALERT), is_told, "{what}: {heard:?}");
    }
}

#[tokio::test]
async fn a_client_cannot_send_endlessly_after_its_hello() {
    let (near, far) = duplex(1 << 20);
    let mut client = Client::new(client(&TLS12), far);
    client.send().await;
    // The key exchange, of as many bytes as there may be, each in a record of its own.
    client.io.write_all(&[22, 3, 3, 0, 4, 16, 0, 0xFF, 0xFF]).await.unwrap();
    client.io.write_all(&in_records(&[0; 20_005], 1)).await.unwrap();
    let refused = soon(shake(near, server())).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{refused}");
}

#[tokio::test]
async fn a_stream_that_waits_holds_nothing_and_one_with_half_a_record_little() {
    for version in VERSIONS {
        let (mut client, mut stream) = pair(version, 1 << 20).await;
        assert_eq!(stream.kept(), 0);
        for size in [1, 1000, 100_000] {
            client.write(&pattern(size)).await;
            soon(stream.read_exact(&mut vec![0; size])).await.unwrap();
            soon(stream.write_all(&pattern(size))).await.unwrap();
            soon(client.read(size)).await;
            assert!(stream.read_u8().now_or_never().is_none());
            assert_eq!(stream.kept(), 0, "{size}");
        }
        client.tls.writer().write_all(&pattern(16_384)).unwrap();
        let bytes = client.said();
        for byte in &bytes[..bytes.len() - 1] {
            client.io.write_all(&[*byte]).await.unwrap();
            assert!(stream.read_u8().now_or_never().is_none());
        }
        assert!(stream.kept() >= bytes.len() - 1 && stream.kept() < bytes.len() + (5 << 10), "{}", stream.kept());
        client.io.write_all(&bytes[bytes.len() - 1..]).await.unwrap();
        soon(stream.read_exact(&mut [0; 16_384])).await.unwrap();
        assert_eq!(stream.kept(), 0);
    }
    let bytes = size_of::<TlsStream<tokio::net::TcpStream>>();
    assert!(bytes <= 1280, "{bytes}");
}
