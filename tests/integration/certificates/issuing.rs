//! From a configuration to a certificate that clients get, and to the next one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use harness::{Daemon, cloudflare::Cloudflare, wait};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;

use super::world::{DAY, DOMAINS, Leaf, World, client, connect, handshake};

/// The certificate that a client gets over QUIC.
async fn shown_by_quic(daemon: &Daemon, host: &str) -> Leaf {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(client(&["h3"])).unwrap();
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let connection = endpoint.connect(daemon.address(2), host).unwrap().await.unwrap();
    let chain = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
    Leaf::of(&chain[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_issued_at_start_shown_everywhere_and_renewed_by_itself() {
    let world = World::start(DOMAINS).await;
    let listed = world.issued("default").await;
    assert_eq!(listed["issuer"], "cloudflare-origin");
    let first = world.shown("app.example.com").await;
    assert!(first.is_cloudflares(), "{first:?}");
    assert_eq!(world.shown("example.com").await, first, "a name that no site has");
    assert_eq!(shown_by_quic(&world.daemon, "app.example.com").await, first);
    assert_eq!(world.state().await, "ready");

    world.advance(DAY * 50);
    let later = world.certificate("default").await;
    assert_eq!((&later["sha256"], world.posts()), (&listed["sha256"], 1), "50 of 90 days are no reason");
    world.advance(DAY * 12);
    world.certificate_where("default", "it was renewed", |it| it["sha256"] != listed["sha256"]).await;
    let second = world.shown("app.example.com").await;
    assert!(second.is_cloudflares() && second.serial != first.serial && second.not_after > first.not_after + DAY * 50);
    assert_eq!(shown_by_quic(&world.daemon, "app.example.com").await, second);
    assert_eq!(world.posts(), 2);

    let world = world.restart(DOMAINS).await;
    assert_eq!(world.shown("app.example.com").await, second, "from the disk");
    assert_eq!(world.posts(), 2);
    assert_eq!(world.double.violations(), [""; 0]);
}

// F1, F2: the API is down.
#[tokio::test(flavor = "multi_thread")]
async fn serving_never_waits_for_an_issuer() {
    let double = Cloudflare::start().await;
    double.set_open(false);
    let world = World::with(double, DOMAINS).await;
    let stand_in = world.shown("app.example.com").await;
    assert!(stand_in.issuer.contains("miwid local CA"), "{stand_in:?}");
    let failing = world.certificate_where("default", "the failure is told", |it| it["state"] == "failing").await;
    assert!(failing["last_error"].as_str().unwrap().contains("cannot be reached"), "{failing:#}");
    assert!(!failing["next_renewal"].is_null());
    assert_eq!(world.state().await, "degraded");
    assert_eq!(world.posts(), 0);

    world.double.set_open(true);
    world.advance(std::time::Duration::from_secs(120));
    world.issued("default").await;
    assert!(world.shown("app.example.com").await.is_cloudflares());
    wait::until(wait::SOON, "the daemon is ready", async || world.state().await == "ready").await;

    // And with a good one on the disk nobody notices at all.
    world.double.set_open(false);
    let world = world.restart(DOMAINS).await;
    assert!(world.shown("app.example.com").await.is_cloudflares());
    assert_eq!(world.state().await, "ready");
}

/// Requests on one HTTP/2 connection until `stop`; how many were answered.
async fn streams(daemon: &Daemon, stop: Arc<AtomicBool>) -> usize {
    let stream = connect(daemon, "app.example.com", &["h2"]).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let request = Request::get("https://app.example.com/").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.expect("the stream is answered");
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "app");
        answered += 1;
    }
    answered
}

// F36
#[tokio::test(flavor = "multi_thread")]
async fn swaps_under_load_fail_no_handshake_and_no_stream() {
    let world = Arc::new(World::start(DOMAINS).await);
    world.issued("default").await;
    let (stop, shaken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let shaking: Vec<_> = (0..4)
        .map(|_| {
            let (world, stop, shaken) = (world.clone(), stop.clone(), shaken.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    handshake(&world.daemon, "app.example.com").await.expect("the handshake succeeds");
                    shaken.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let flowing = {
        let (world, stop) = (world.clone(), stop.clone());
        tokio::spawn(async move { streams(&world.daemon, stop).await })
    };
    let mut serials = vec![world.shown("app.example.com").await.serial];
    for _ in 0..5 {
        let before = shaken.load(Ordering::Relaxed);
        // A certificate must end later than the one before it.
        world.advance(std::time::Duration::from_secs(120));
        world.daemon.ctl_ok(&["cert", "renew", "default", "--force"]).await;
        serials.push(world.shown("app.example.com").await.serial);
        wait::until(wait::LATER, "handshakes go on", async || shaken.load(Ordering::Relaxed) > before + 20).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in shaking {
        task.await.unwrap();
    }
    assert!(flowing.await.unwrap() > 20);
    serials.dedup();
    assert_eq!(serials.len(), 6, "each was shown as soon as the command had ended");
}

// F34
#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_with_one_store_make_one_request() {
    let world = World::start("").await;
    let (one, two) = tokio::join!(world.another(DOMAINS).start(), world.another(DOMAINS).start());
    for daemon in [&one, &two] {
        wait::until(wait::LATER, "both show it", async || {
            let stream = handshake(daemon, "app.example.com").await.unwrap();
            Leaf::of(&stream.get_ref().1.peer_certificates().unwrap()[0]).is_cloudflares()
        })
        .await;
    }
    assert_eq!(world.posts(), 1);
    world.advance(DAY * 62);
    let serial = async |daemon: &Daemon| {
        let stream = handshake(daemon, "app.example.com").await.unwrap();
        Leaf::of(&stream.get_ref().1.peer_certificates().unwrap()[0]).serial
    };
    let old = world.double.certificates()[0].id.clone();
    for daemon in [&one, &two] {
        wait::until(wait::LATER, "both have the new one", async || serial(daemon).await != old).await;
    }
    assert_eq!((world.posts(), serial(&one).await), (2, serial(&two).await));
}

// F25
#[tokio::test(flavor = "multi_thread")]
async fn one_that_its_issuer_has_revoked_is_replaced() {
    let world = World::start(DOMAINS).await;
    let first = world.issued("default").await;
    world.double.revoke(&world.double.certificates()[0].id);
    world.advance(DAY + std::time::Duration::from_secs(60));
    world.certificate_where("default", "another is there", |it| it["sha256"] != first["sha256"]).await;
    assert_eq!(world.posts(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_what_is_wanted() {
    let world = World::start(DOMAINS).await;
    let first = world.issued("default").await;
    let text = std::fs::read_to_string(world.daemon.config_path()).unwrap();
    world.daemon.rewrite_config(&text.replace("\"*.example.com\"]", "\"*.example.com\", \"example.net\"]"));
    assert_eq!(world.daemon.reload().await.status, 0);
    world.certificate_where("default", "it has another name", |it| it["sha256"] != first["sha256"]).await;
    assert!(world.shown("example.net").await.is_cloudflares());
    world.daemon.rewrite_config(&text.replace("auto_cert = true", "auto_cert = false"));
    assert_eq!(world.daemon.reload().await.status, 0);
    assert!(world.certificate("default").await.is_null());
    assert!(!world.shown("app.example.com").await.is_cloudflares());
}
