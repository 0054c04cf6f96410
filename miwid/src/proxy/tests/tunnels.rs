//! Upgrades: bytes both ways, and how they end.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::rig::{Rig, head, origin, run, say};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Accepts an upgrade and then sends back what it gets.
async fn echo(mut stream: TcpStream, _: usize) {
    let asked = head(&mut stream).await.unwrap().to_lowercase();
    assert!(asked.contains("connection: upgrade\r\n") && asked.contains("upgrade: websocket\r\n"), "{asked}");
    say(&mut stream, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let (mut from, mut to) = stream.split();
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

async fn open(rig: &Rig) -> TcpStream {
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    say(&mut client, UPGRADE).await;
    let answer = head(&mut client).await.unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 101") && answer.contains("upgrade: websocket"), "{answer}");
    client
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways_and_counts_them() {
    run(async {
        let rig = Rig::new().await;
        let endpoint = rig.publish(origin(echo).await);
        let mut client = open(&rig).await;
        client.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!((&back, endpoint.in_flight()), (b"hello", 1));
        drop(client);
        let tunnel = rig.tunnels.borrow_mut().pop().unwrap();
        let end = tunnel.await.unwrap();
        assert_eq!((end.from_client, end.to_client, endpoint.in_flight()), (5, 5, 0));
    });
}

#[test]
fn a_withdrawn_endpoint_ends_its_tunnels() {
    run(async {
        let rig = Rig::new().await;
        let endpoint = rig.publish(origin(echo).await);
        let mut client = open(&rig).await;
        assert!(rig.set.withdraw(&endpoint, super::rig::DEADLINE).await);
        let mut last = Vec::new();
        client.read_to_end(&mut last).await.unwrap();
        assert_eq!(last, [0x88, 2, 0x03, 0xf4], "a Close that says 1012");
    });
}

#[test]
fn an_upgrade_that_the_app_declines_is_an_ordinary_answer() {
    run(async {
        let rig = Rig::new().await;
        rig.publish(
            origin(|mut stream, _| async move {
                head(&mut stream).await.unwrap();
                say(&mut stream, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
            })
            .await,
        );
        let answer = rig.ask(&UPGRADE.replace("keep-alive, Upgrade", "Upgrade, close")).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.ends_with("no"), "{answer}");
    });
}

#[test]
fn a_101_that_nobody_asked_for_is_a_bad_response() {
    run(async {
        let rig = Rig::new().await;
        rig.publish(
            origin(|mut stream, _| async move {
                head(&mut stream).await.unwrap();
                say(&mut stream, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;
            })
            .await,
        );
        let answer = rig.get().await;
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("miwi-reason: bad-response"), "{answer}");
    });
}
