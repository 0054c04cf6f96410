//! How a connection ends: with a farewell, without one, or because something is wrong.

use std::io::{self, Read, Write};

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::*;

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
