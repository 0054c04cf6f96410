//! Data in both directions, and what is kept meanwhile.

use std::io::{IoSlice, Write};

use futures_util::FutureExt;
use rustls::{SupportedProtocolVersion, version::TLS13};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex, split};
use tokio_rustls::TlsConnector;

use super::{
    super::{TlsStream, session::SEALED_MAX},
    world::*,
};

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

#[tokio::test]
async fn no_more_is_taken_than_is_sealed_and_nothing_more_before_that_is_sent() {
    let (mut client, mut stream) = pair(&TLS13, 8 << 10).await;
    let data = pattern(SEALED_MAX * 2);
    let taken = soon(stream.write(&data)).await.unwrap();
    assert_eq!(taken, SEALED_MAX);
    assert!(stream.kept() > SEALED_MAX - (8 << 10) && stream.kept() <= SEALED_MAX + 1024, "{}", stream.kept());
    let again = stream.write(&data).now_or_never();
    assert!(again.is_none(), "the client takes nothing");
    assert!(stream.flush().now_or_never().is_none());
    let (flushed, got) = soon(async { tokio::join!(stream.flush(), client.read(taken)) }).await;
    flushed.unwrap();
    assert!(got == data[..taken]);
    assert_eq!(stream.kept(), 0);
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
