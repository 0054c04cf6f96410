//! WebSockets through the proxy: whatever is said arrives as it was said, and nobody is cut without a word.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt, future::join_all};
use harness::{Daemon, Received, WebSocket, wait};
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{
        Message,
        protocol::{
            CloseFrame,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

/// Sends back what it gets, frame by frame as tungstenite reads it; a Close is answered by the library.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn config(origin: SocketAddr) -> String {
    format!("[backends.\"localhost\"]\nurl = \"http://{origin}\"\n")
}

async fn open(address: SocketAddr) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (socket, _) = client_async("ws://localhost/", stream).await.expect("the WebSocket opens");
    socket
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Message {
    let next = timeout(wait::SOON, socket.next()).await.expect("something comes");
    next.expect("the WebSocket is open").expect("it is well-formed")
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_every_size_and_kind_come_back() {
    let daemon = Daemon::start(&config(echo().await)).await;
    let mut socket = open(daemon.http()).await;
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20, 8 << 20] {
        let sent = Message::binary(vec![7; length]);
        socket.send(sent.clone()).await.unwrap();
        assert_eq!(next(&mut socket).await, sent, "{length} bytes");
    }
    let text = Message::text("grüße, 世界, \u{10ffff}");
    socket.send(text.clone()).await.unwrap();
    assert_eq!(next(&mut socket).await, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_arrive_in_order_with_pings_between() {
    let daemon = Daemon::start(&config(echo().await)).await;
    let mut socket = open(daemon.http()).await;
    let piece = |data: &'static str, kind, last| Message::Frame(Frame::message(data, OpCode::Data(kind), last));
    socket.send(piece("one ", Data::Text, false)).await.unwrap();
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    socket.send(piece("two ", Data::Continue, false)).await.unwrap();
    socket.send(piece("three", Data::Continue, true)).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong("are you there".into()));
    assert_eq!(next(&mut socket).await, Message::text("one two three"));
}

#[tokio::test(flavor = "multi_thread")]
async fn close_codes_pass_both_ways() {
    let daemon = Daemon::start(&config(echo().await)).await;
    for code in [1000, 1001, 1008, 1011, 3000, 4999] {
        let mut socket = open(daemon.http()).await;
        let frame = CloseFrame { code: CloseCode::from(code), reason: "enough".into() };
        socket.close(Some(frame.clone())).await.unwrap();
        // The echo's library answers with the code that it got.
        assert_eq!(next(&mut socket).await, Message::Close(Some(frame)), "{code}");
    }
}

/// Opens by hand and returns the raw streams of both ends.
async fn raw() -> (Daemon, TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let daemon = Daemon::start(&config(listener.local_addr().unwrap())).await;
    let mut client = TcpStream::connect(daemon.http()).await.unwrap();
    let ask = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
               sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.write_all(ask.as_bytes()).await.unwrap();
    let (mut origin, _) = timeout(wait::SOON, listener.accept()).await.expect("the origin is asked").unwrap();
    head(&mut origin).await;
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                  sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    origin.write_all(answer.as_bytes()).await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    (daemon, client, origin)
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(wait::SOON, stream.read_u8()).await.expect("a head comes").expect("a whole head"));
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_frame_passes_unchanged_for_the_ends_to_judge() {
    let (_daemon, mut client, mut origin) = raw().await;
    // Reserved bits, a reserved opcode, no mask, a length that is a lie.
    let junk: Vec<u8> = [&[0xf3, 0x7f, 0xff, 0xff, 0xff, 0xff][..], &[0; 300], b"\r\nGET / HTTP/1.1\r\n\r\n"].concat();
    client.write_all(&junk).await.unwrap();
    let mut arrived = vec![0; junk.len()];
    timeout(wait::SOON, origin.read_exact(&mut arrived)).await.expect("it arrives").unwrap();
    assert_eq!(arrived, junk);
    origin.write_all(&junk).await.unwrap();
    timeout(wait::SOON, client.read_exact(&mut arrived)).await.expect("it arrives").unwrap();
    assert_eq!(arrived, junk);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_has_said_all_may_still_listen() {
    let (_daemon, mut client, mut origin) = raw().await;
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    timeout(wait::SOON, origin.read_to_end(&mut heard)).await.expect("the end arrives").unwrap();
    assert_eq!(heard, b"last words");
    origin.write_all(b"and an answer").await.unwrap();
    drop(origin);
    let mut answer = Vec::new();
    timeout(wait::SOON, client.read_to_end(&mut answer)).await.expect("the answer arrives").unwrap();
    assert_eq!(answer, b"and an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_websockets_live_through_the_reload_of_another_site() {
    const MANY: usize = 300;
    let origin = echo().await;
    let daemon = Daemon::start(&config(origin)).await;
    let before = resident(&daemon);
    let mut sockets = join_all((0..MANY).map(|_| open(daemon.http()))).await;
    for socket in &mut sockets {
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(socket).await, Message::text("hello"));
    }
    println!("{} bytes of the daemon for each of {MANY} idle WebSockets", (resident(&daemon) - before) / MANY);
    let other = "[backends.\"new.test\"]\nrespond = { status = 200, body = \"new\" }\n";
    daemon.rewrite_config(&format!("{}{other}", config(origin)));
    assert_eq!(daemon.reload().await.status, 0);
    assert_eq!(daemon.get_host("new.test", "/").await.text(), "new");
    for socket in &mut sockets {
        socket.send(Message::text("still here")).await.unwrap();
        assert_eq!(next(socket).await, Message::text("still here"));
    }
}

/// Resident bytes.
fn resident(daemon: &Daemon) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).and_then(|it| it.parse::<usize>().ok()).unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_says_1012_to_every_websocket() {
    let daemon = Daemon::start(&config(echo().await)).await;
    let open = || WebSocket::connect(daemon.http(), "localhost", "/");
    let mut sockets: Vec<WebSocket> = join_all((0..20).map(|_| open())).await.into_iter().map(Result::unwrap).collect();
    for socket in &mut sockets {
        socket.echo("hello").await;
    }
    daemon.signal(Signal::SIGTERM);
    for socket in &mut sockets {
        assert_eq!(socket.receive_within(Duration::from_secs(20)).await, Received::Closed(1012));
    }
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_under_way_at_a_stop_is_not_broken_by_the_close() {
    let (daemon, mut client, mut origin) = raw().await;
    // The first half of an unmasked text frame of ten bytes.
    origin.write_all(b"\x81\x0ahello").await.unwrap();
    let mut half = [0; 7];
    timeout(wait::SOON, client.read_exact(&mut half)).await.expect("it arrives").unwrap();
    daemon.signal(Signal::SIGTERM);
    wait::until(wait::SOON, "it drains", async || daemon.log().contains("stopping")).await;
    origin.write_all(b"world").await.unwrap();
    let mut rest = Vec::new();
    timeout(wait::SOON, client.read_to_end(&mut rest)).await.expect("the end comes").unwrap();
    assert!(rest.starts_with(b"world"), "{rest:?}");
    assert_eq!(rest[5..9], [0x88, rest[6], 0x03, 0xf4], "a Close with 1012 follows: {rest:?}");
}
