//! Keys that change while data flows.

use futures_util::FutureExt;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};

use super::world::*;

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
