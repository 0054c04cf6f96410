//! How a connection begins, or does not.

use std::io::{self, Write};

use rustls::{
    HandshakeKind,
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::world::*;

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
