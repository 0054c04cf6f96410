//! Large files that the kernel encrypts (kTLS): whole, in every cipher, with whatever is asked for around them. Most kernels
//! of build machines have no module for it; there these tests show that nothing is missed.

use std::fs;

use harness::{Builder, Daemon, skip, wait};
use rustls::CipherSuite;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
};
use tokio_rustls::client::TlsStream;

use super::{
    client::{Authority, Wants, client, connect},
    with,
};

const CONFIG: &str = r#"
[server]
workers = 1
bind = ["127.0.0.1"]
https_port = {port2}
http3 = false

[ssl]
cert = "{dir}/cert.pem"
key = "{dir}/key.pem"
ktls = true

[backends."a.test"]
root = "{dir}/www"
"#;

/// The counters are those of the whole kernel.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Below the threshold, on it, beyond one stretch of sendfile, and many records with a rest.
const SIZES: [usize; 5] = [1000, 256 << 10, 300_001, 1 << 20, 3_000_001];

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|it| (it * 31 % 251) as u8).collect()
}

fn builder(authority: &Authority) -> Builder {
    with(CONFIG, authority, &["a.test"]).file("www/index.html", "index")
}

async fn serving(authority: &Authority) -> Daemon {
    let daemon = builder(authority).start().await;
    for size in SIZES {
        fs::write(daemon.dir().join(format!("www/{size}.bin")), content(size)).expect("there is space");
    }
    daemon
}

/// Connections whose keys for sending the kernel has got so far; `None`: it has no module.
fn handed_over() -> Option<u64> {
    let text = fs::read_to_string("/proc/net/tls_stat").ok()?;
    text.lines().find_map(|it| it.strip_prefix("TlsTxSw")?.trim().parse().ok())
}

struct Wire(TlsStream<TcpStream>);

impl Wire {
    async fn to(daemon: &Daemon, authority: &Authority, wants: Wants<'_>) -> Self {
        let config = client(&authority.pem, &Wants { alpn: &["http/1.1"], ..wants });
        Self(connect(daemon.address(2), "a.test", &config).await.expect("a handshake"))
    }

    async fn send(&mut self, target: &str, fields: &str) {
        let head = format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n{fields}\r\n");
        self.0.write_all(head.as_bytes()).await.expect("it is open");
    }

    async fn answer(&mut self) -> Result<(String, Vec<u8>), std::io::Error> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::time::timeout(wait::SOON, self.0.read_u8()).await??);
        }
        let head = String::from_utf8(head).expect("heads are text");
        let length =
            head.lines().find_map(|it| it.strip_prefix("content-length: ")).map_or(0, |it| it.parse().unwrap());
        let mut body = vec![0; length];
        tokio::time::timeout(wait::SOON, self.0.read_exact(&mut body)).await??;
        Ok((head, body))
    }

    async fn ask(&mut self, target: &str, fields: &str) -> (String, Vec<u8>) {
        self.send(target, fields).await;
        self.answer().await.expect("an answer")
    }
}

/// Asks over and over, for a file is on the shelf only once it has been left alone for a while, until the kernel has one
/// connection more.
async fn hand_over(daemon: &Daemon, authority: &Authority, wants: impl Fn() -> Wants<'static>) -> Wire {
    let end = tokio::time::Instant::now() + wait::LATER;
    let mut wire = Wire::to(daemon, authority, wants()).await;
    let before = handed_over();
    while handed_over() == before {
        assert!(tokio::time::Instant::now() < end, "the kernel never gets the keys: {}", daemon.log());
        assert!(wire.ask("/300001.bin", "").await.1 == content(300_001));
    }
    wire
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_module_files_arrive_all_the_same_and_it_is_said_why() {
    if handed_over().is_some() {
        skip!("the kernel has the module");
    }
    let authority = Authority::new();
    let daemon = serving(&authority).await;
    let mut wire = Wire::to(&daemon, &authority, Wants::default()).await;
    for size in SIZES {
        assert!(wire.ask(&format!("/{size}.bin"), "").await.1 == content(size), "{size}");
    }
    let log = daemon.log();
    assert!(log.contains("the kernel does not encrypt") && log.contains("modprobe tls"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_are_encrypted_by_the_kernel_and_arrive_whole() {
    if handed_over().is_none() {
        skip!("the kernel has no module for TLS");
    }
    let _alone = ALONE.lock().await;
    let authority = Authority::new();
    let daemon = serving(&authority).await;
    let suites = [
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    for suite in suites {
        let mut wire = hand_over(&daemon, &authority, || Wants { only_suite: Some(suite), ..Wants::default() }).await;
        for size in SIZES.into_iter().chain(SIZES) {
            let (head, body) = wire.ask(&format!("/{size}.bin"), "").await;
            assert!(head.starts_with("HTTP/1.1 200 ") && body == content(size), "{suite:?} {size}: {head}");
        }
        let (head, body) = wire.ask("/1048576.bin", "range: bytes=5-700004\r\n").await;
        assert!(head.starts_with("HTTP/1.1 206 ") && body == content(1 << 20)[5..700_005], "{head}");
        let tag = head.lines().find_map(|it| it.strip_prefix("etag: ")).expect("files have one");
        let (head, _) = wire.ask("/1048576.bin", &format!("if-none-match: {tag}\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 304 "), "{head}");
        // Several at once: their bytes are for the kernel to decrypt, too.
        for size in SIZES {
            wire.send(&format!("/{size}.bin"), "").await;
        }
        for size in SIZES {
            assert!(wire.answer().await.expect("each is answered").1 == content(size), "{suite:?} {size}");
        }
        wire.ask("/300001.bin", "connection: close\r\n").await;
        let end = tokio::time::timeout(wait::SOON, wire.0.read(&mut [0; 16])).await.expect("it ends");
        assert_eq!(end.expect("with a close_notify"), 0, "{suite:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_time_gets_everything_and_one_that_leaves_takes_nothing_along() {
    if handed_over().is_none() {
        skip!("the kernel has no module for TLS");
    }
    let _alone = ALONE.lock().await;
    let authority = Authority::new();
    let daemon = serving(&authority).await;
    let mut slow = hand_over(&daemon, &authority, Wants::default).await;
    // More than the buffers on its way take.
    for _ in 0..8 {
        slow.send("/3000001.bin", "").await;
    }
    let mut gone = hand_over(&daemon, &authority, Wants::default).await;
    gone.send("/3000001.bin", "").await;
    gone.0.read_u8().await.expect("it has begun");
    drop(gone);
    let mut other = Wire::to(&daemon, &authority, Wants::default()).await;
    assert!(other.ask("/1000.bin", "").await.1 == content(1000));
    for _ in 0..8 {
        assert!(slow.answer().await.expect("it waits").1 == content(3_000_001));
    }
}

/// Before Linux 6.14 the kernel cannot change keys; then the connection ends, and says nothing wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_changes_its_keys_is_followed_or_let_go() {
    if handed_over().is_none() {
        skip!("the kernel has no module for TLS");
    }
    let _alone = ALONE.lock().await;
    let authority = Authority::new();
    let daemon = serving(&authority).await;
    let can_follow = !daemon.log().contains("without new keys");
    for asked_first in [true, false] {
        let mut wire = hand_over(&daemon, &authority, Wants::default).await;
        wire.0.get_mut().1.refresh_traffic_keys().expect("TLS 1.3 can");
        if asked_first {
            wire.0.flush().await.expect("it is open");
        }
        for _ in 0..3 {
            wire.send("/300001.bin", "").await;
            match wire.answer().await {
                Ok((_, body)) => assert!(can_follow && body == content(300_001)),
                Err(error) => return assert!(!can_follow, "{error}\n{}", daemon.log()),
            }
        }
    }
    assert!(can_follow);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_nothing_but_change_its_keys_is_let_go() {
    if handed_over().is_none() {
        skip!("the kernel has no module for TLS");
    }
    let _alone = ALONE.lock().await;
    let authority = Authority::new();
    let daemon = serving(&authority).await;
    let mut wire = hand_over(&daemon, &authority, Wants::default).await;
    for _ in 0..100 {
        wire.0.get_mut().1.refresh_traffic_keys().expect("TLS 1.3 can");
        if wire.0.flush().await.is_err() {
            break;
        }
    }
    let end = tokio::time::timeout(wait::SOON, wire.0.read(&mut [0; 16])).await.expect("it ends");
    assert!(end.is_err() || matches!(end, Ok(0)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_client_is_served_as_ever() {
    if handed_over().is_none() {
        skip!("the kernel has no module for TLS");
    }
    let _alone = ALONE.lock().await;
    let authority = Authority::new();
    let daemon = serving(&authority).await;
    // Now the file is on the shelf.
    drop(hand_over(&daemon, &authority, Wants::default).await);
    let before = handed_over();
    let mut old = Wire::to(&daemon, &authority, Wants { only_tls12: true, ..Wants::default() }).await;
    for _ in 0..20 {
        assert!(old.ask("/300001.bin", "").await.1 == content(300_001));
    }
    assert_eq!(handed_over(), before);
}
