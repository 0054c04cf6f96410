//! TLS sessions that clients come back with: they know nothing of engines.

use std::{net::SocketAddr, sync::Arc};

use harness::{AnyCertificate, Daemon, wait};
use rustls::{HandshakeKind, crypto::aws_lc_rs};

use super::{kill_engine, start};
use crate::tls::client::{Authority, Wants, ask, client, connect};

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_resumed_with_the_next_engine() {
    let authority = Authority::new();
    let pair = authority.issue(&["a.test"]);
    let text = "[server]\nhttps_port = {port2}\n[ssl]\ncert = \"{dir}/cert.pem\"\nkey = \"{dir}/key.pem\"\n\
                [backends.\"a.test\"]\nrespond = { status = 200, body = \"a\" }\n";
    let builder = Daemon::builder(text).file("cert.pem", &pair.cert).file("key.pem", &pair.key);
    let daemon = builder.warden().env("MIWID_TEST_CONFIRM_MS", "300").start().await;
    let clients = [false, true].map(|only_tls12| client(&authority.pem, &Wants { only_tls12, ..Wants::default() }));
    let met = async || {
        let mut kinds = Vec::new();
        for client in &clients {
            let mut stream = connect(daemon.address(2), "a.test", client).await.expect("a handshake");
            ask(&mut stream, "a.test").await.expect("an answer");
            kinds.push(stream.get_ref().1.handshake_kind().expect("a kind"));
        }
        kinds
    };
    assert_eq!(met().await, [HandshakeKind::Full; 2]);
    kill_engine(&daemon).await;
    assert_eq!(met().await, [HandshakeKind::Resumed; 2], "after one that died");
    daemon.ctl_ok(&["upgrade"]).await;
    assert_eq!(met().await, [HandshakeKind::Resumed; 2], "after an upgrade");
    kill_engine(&daemon).await;
    assert_eq!(met().await, [HandshakeKind::Resumed; 2], "and after all that");
    let strangers = client(&authority.pem, &Wants::default());
    let stream = connect(daemon.address(2), "a.test", &strangers).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "only who has been here comes back");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_over_quic_are_resumed_with_the_next_engine() {
    let text = "[server]\nhttps_port = {port2}\nenable_https = true\n[ssl]\nissuer = \"local\"\n\
                [backends.\"localhost\"]\nrespond = { status = 200 }\n";
    let daemon = start(text).await;
    let shown = Arc::new(AnyCertificate::default());
    let mut client = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(shown.clone())
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(client).expect("good for QUIC");
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket");
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    // How many certificates have been shown so far.
    let met = async || {
        let connecting = endpoint.connect(daemon.address(2), "localhost").expect("a connection begins");
        let connection = tokio::time::timeout(wait::LATER, connecting).await.expect("in time").expect("a handshake");
        // What it says first comes behind the tickets.
        tokio::time::timeout(wait::LATER, connection.accept_uni()).await.expect("in time").expect("a stream");
        connection.close(0_u32.into(), b"");
        shown.shown()
    };
    assert_eq!(met().await, 1);
    assert_eq!(met().await, 1, "a session is resumed where it was begun");
    kill_engine(&daemon).await;
    assert_eq!(met().await, 1, "and with the next engine");
}
