//! What a stop means to clients of HTTP/2: they hear twice of it, and everything that they were told would be answered is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use harness::{
    Daemon, Origin,
    h2::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RawH2, block},
    wait,
};
use nix::sys::signal::Signal;
use tokio::{net::TcpStream, task::JoinSet};

use super::{GET, time::get};

const ACK: u8 = 1;
const NONE_REFUSED: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];

fn config(origin: &Origin) -> String {
    format!("[backends.\"localhost\"]\nurl = \"{}\"\n", origin.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_goodbye_refuses_nothing_and_the_second_names_the_last_request() {
    let origin = Origin::start("origin").await;
    origin.delay(Duration::from_secs(1));
    let daemon = Daemon::start(&config(&origin)).await;
    let mut client = RawH2::connect(daemon.http()).await;
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET)).await.unwrap();
    wait::until(wait::SOON, "the origin is asked", async || origin.requests() == 1).await;
    daemon.signal(Signal::SIGTERM);
    let first = client.until(GOAWAY).await.expect("a first goodbye");
    assert_eq!(first.payload[..8], [NONE_REFUSED, [0; 4]].concat(), "{first:?}");
    // Sent before the client could know better.
    client.send(HEADERS, END_HEADERS | END_STREAM, 3, &block(&GET)).await.unwrap();
    let ping = client.until(PING).await.expect("a ping that says how long it takes to know");
    client.send(PING, ACK, 0, &ping.payload).await.unwrap();
    let (mut last, mut answered) = (None, Vec::new());
    while let Some(frame) = client.next().await {
        match frame.kind {
            GOAWAY => last = Some(frame.payload[..8].to_vec()),
            DATA if frame.flags & END_STREAM != 0 => answered.push(frame.stream),
            _ => {}
        }
    }
    answered.sort_unstable();
    assert_eq!(last, Some(vec![0, 0, 0, 3, 0, 0, 0, 0]), "the second goodbye");
    assert_eq!(answered, [1, 3]);
    assert_eq!(daemon.ended(wait::SOON).await.code, Some(0));
}

/// How it went for the requests of all clients.
#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    /// The daemon said that it has not touched them.
    refused: AtomicUsize,
}

/// Asks with eight requests at a time until it is told to go. Panics when a request is lost.
async fn load(address: std::net::SocketAddr, tally: Arc<Tally>) {
    let stream = TcpStream::connect(address).await.expect("connects");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2 is spoken");
    let connection = tokio::spawn(connection);
    let mut streams = JoinSet::new();
    for _ in 0..8 {
        let (client, tally) = (client.clone(), tally.clone());
        streams.spawn(async move {
            // Without a place for one more request, the client has been told to go.
            while let Ok(mut client) = client.clone().ready().await {
                let Ok((answer, _)) = client.send_request(get("/"), true) else { return };
                match whole(answer).await {
                    Ok(body) => {
                        assert_eq!(body, b"origin");
                        tally.answered.fetch_add(1, Relaxed);
                    }
                    Err(error) => {
                        let reason = error.reason();
                        let untouched = error.is_go_away() && error.is_remote() && reason == Some(h2::Reason::NO_ERROR)
                            || error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
                        assert!(untouched, "a request was lost: {error:?}");
                        tally.refused.fetch_add(1, Relaxed);
                        return;
                    }
                }
            }
        });
    }
    while let Some(done) = streams.join_next().await {
        done.expect("no request was lost");
    }
    drop(client);
    let _ = tokio::time::timeout(wait::SOON, connection).await.expect("the connection ends");
}

async fn whole(answer: h2::client::ResponseFuture) -> Result<Vec<u8>, h2::Error> {
    let mut body = answer.await?.into_body();
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        whole.extend(data);
    }
    Ok(whole)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_no_request() {
    let origin = Origin::start("origin").await;
    origin.delay(Duration::from_millis(5));
    let daemon = Daemon::start(&config(&origin)).await;
    let tally = Arc::new(Tally::default());
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        clients.spawn(load(daemon.http(), tally.clone()));
    }
    wait::until(wait::SOON, "the load runs", async || tally.answered.load(Relaxed) > 500).await;
    daemon.signal(Signal::SIGTERM);
    while let Some(done) = clients.join_next().await {
        done.expect("no request was lost");
    }
    println!("{} answered, {} refused", tally.answered.load(Relaxed), tally.refused.load(Relaxed));
    assert_eq!(daemon.ended(wait::SOON).await.code, Some(0));
    assert_eq!(origin.requests(), tally.answered.load(Relaxed), "each request was asked once and answered once");
}
