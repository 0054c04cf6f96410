//! The three ways to the echo, and one client that walks them: it sends a case's bytes as they are and reads to the end.

use std::net::SocketAddr;

use bytes::Bytes;
use harness::wait;
use http::{Method, Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    End, Seen, Verdict,
    cases::{Case, Goodbye},
};

#[derive(Clone, Copy, Debug)]
pub enum Road {
    Direct(SocketAddr),
    Http1(SocketAddr),
    Http2(SocketAddr),
}

/// Bytes to say, piece by piece, and whether the end is said behind them.
struct Speech<'a> {
    pieces: std::slice::Chunks<'a, u8>,
    goodbye: Goodbye,
    offer: &'static str,
}

impl<'a> Speech<'a> {
    fn of(case: &'a Case) -> Self {
        Self {
            pieces: case.sent.chunks(case.chop.unwrap_or(case.sent.len()).max(1)),
            goodbye: case.goodbye,
            offer: case.offer,
        }
    }
}

impl Road {
    pub async fn walk(self, case: &Case) -> Verdict {
        let walk = async {
            match self {
                Self::Direct(address) | Self::Http1(address) => upgraded(address, Speech::of(case)).await,
                Self::Http2(address) => connected(address, Speech::of(case)).await,
            }
        };
        let (heard, ended) =
            timeout(wait::LATER, walk).await.unwrap_or_else(|_| panic!("{} {self:?}: no end", case.name));
        Verdict { frames: frames(heard.into()), ended }
    }
}

/// RFC 6455, 4.1.
async fn upgraded(address: SocketAddr, speech: Speech<'_>) -> (Vec<u8>, End) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("sets an option");
    let ask = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
               sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let offer =
        if speech.offer.is_empty() { String::new() } else { format!("sec-websocket-extensions: {}\r\n", speech.offer) };
    stream.write_all(format!("{ask}{offer}\r\n").as_bytes()).await.expect("it is asked");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert_eq!(head.contains("\r\nsec-websocket-extensions: permessage-deflate"), !speech.offer.is_empty(), "{head}");
    let (mut from, mut to) = stream.split();
    let said = async {
        for piece in speech.pieces {
            // An echo that has had enough may have closed already.
            let _ = to.write_all(piece).await;
        }
        if speech.goodbye == Goodbye::HalfClose {
            let _ = to.shutdown().await;
        }
    };
    let mut heard = Vec::new();
    let (read, ()) = tokio::join!(from.read_to_end(&mut heard), said);
    (heard, if read.is_ok() { End::Whole } else { End::Broken })
}

/// RFC 8441, 5.
async fn connected(address: SocketAddr, speech: Speech<'_>) -> (Vec<u8>, End) {
    let stream = TcpStream::connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("sets an option");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2 is spoken");
    let driver = tokio::spawn(connection);
    wait::until(wait::SOON, "extended CONNECT is offered", async || client.is_extended_connect_protocol_enabled())
        .await;
    let ask = Request::builder()
        .method(Method::CONNECT)
        .uri("http://localhost/")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13");
    let ask = if speech.offer.is_empty() { ask } else { ask.header("sec-websocket-extensions", speech.offer) };
    let ask = ask.body(()).expect("a request");
    let (answer, mut to) = client.send_request(ask, false).expect("it is asked");
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers().contains_key("sec-websocket-extensions"), !speech.offer.is_empty());
    let mut from = answer.into_body();
    let mut heard = Vec::new();
    let read = async {
        while let Some(data) = from.data().await {
            let data = data?;
            from.flow_control().release_capacity(data.len())?;
            heard.extend(data);
        }
        Ok::<_, h2::Error>(())
    };
    let (read, ()) = tokio::join!(read, say(&mut to, speech));
    driver.abort();
    (heard, if read.is_ok() { End::Whole } else { End::Broken })
}

async fn say(to: &mut h2::SendStream<Bytes>, speech: Speech<'_>) {
    for piece in speech.pieces {
        let mut piece = Bytes::copy_from_slice(piece);
        while !piece.is_empty() {
            to.reserve_capacity(piece.len());
            let Some(Ok(room)) = std::future::poll_fn(|cx| to.poll_capacity(cx)).await else { return };
            if to.send_data(piece.split_to(room.min(piece.len())), false).is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
    if speech.goodbye == Goodbye::HalfClose {
        let _ = to.send_data(Bytes::new(), true);
    }
}

/// What was heard, cut where the frames say. A rest that is no whole frame shows as one of opcode 15.
fn frames(mut heard: Bytes) -> Vec<Seen> {
    let mut frames = Vec::new();
    while !heard.is_empty() {
        let Some(payload) = payload(&heard) else {
            frames.push(Seen { first: 0xff, payload: heard });
            break;
        };
        let first = heard[0];
        let _ = heard.split_to(payload.start);
        frames.push(Seen { first, payload: heard.split_to(payload.len()) });
    }
    frames
}

fn payload(heard: &[u8]) -> Option<std::ops::Range<usize>> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let (start, length) = match *heard.get(1)? {
        126 => (4, number(heard.get(2..4)?)),
        127 => (10, number(heard.get(2..10)?)),
        // A server never masks.
        short @ ..126 => (2, usize::from(short)),
        _ => return None,
    };
    (heard.len() >= start + length).then_some(start..start + length)
}
