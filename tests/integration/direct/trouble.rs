//! What goes wrong around plain requests that are forwarded.

use harness::{Daemon, RawOrigin};

use super::{CONFIG, Wire};

/// A server that is asked over HTTP/2 may say something else over HTTP/1.1, which upgrades are spoken in.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_an_upgrade_has_left_carries_nothing_for_a_server_of_http2() {
    let origin = RawOrigin::lasting(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n").await;
    let site = format!("[backends.\"two.test\"]\nurl = \"{}\"\nupstream_http = \"2\"\nretries = 0\n", origin.url());
    let daemon = Daemon::start(&format!("{CONFIG}{site}")).await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let refused = Wire::to(&daemon).await.ask("", "two.test", "/", upgrade).await;
    assert!(refused[0].0[0].starts_with("HTTP/1.1 426 "), "{refused:?}");
    Wire::to(&daemon).await.ask("", "two.test", "/", "").await;
    let heads = origin.heads();
    assert!(heads.len() == 2 && heads[1].starts_with("PRI * HTTP/2.0\r\n"), "{heads:#?}");
}
