//! A client of HTTP/2 that waits: for its own body, for its own head, for nothing at all. One that does not take its answer
//! would have to be waited for longer than a test may; `server::paced` has that beside the code.

use bytes::Bytes;
use harness::{
    Daemon, Origin,
    h2::{END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, RawH2, block},
    wait,
};
use http::{Method, Request};
use tokio::{net::TcpStream, time::timeout};

use super::{FILES, GET};

const HURRIED: &str = "[server]\nrequest_timeout = \"1s\"\nkeepalive_timeout = \"1s\"\n";

/// A client that does what is right.
pub async fn client(daemon: &Daemon) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(daemon.http()).await.expect("connects");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    client.ready().await.expect("it may ask")
}

pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://localhost{path}")).body(()).expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_ends_its_stream_and_no_other() {
    let origin = Origin::start("origin").await;
    let daemon = Daemon::start(&format!("{HURRIED}[backends.\"localhost\"]\nurl = \"{}\"\n", origin.url())).await;
    let mut client = client(&daemon).await;
    let mut upload = get("/upload");
    *upload.method_mut() = Method::POST;
    let (answer, mut body) = client.send_request(upload, false).unwrap();
    body.send_data("a beginning".into(), false).unwrap();
    let answer = timeout(wait::SOON, answer).await.expect("it is not waited for").expect("an answer");
    assert_eq!(answer.status(), 408);
    let (answer, _) = client.send_request(get("/"), true).unwrap();
    assert_eq!(answer.await.expect("the connection goes on").status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_ends_the_connection() {
    let daemon = Daemon::builder(&format!("{HURRIED}{FILES}")).file("a", "hello").start().await;
    let mut client = RawH2::connect(daemon.http()).await;
    client.send(HEADERS, END_STREAM, 1, &block(&GET)).await.unwrap();
    while let Some(frame) = client.next().await {
        assert!(![HEADERS, RST_STREAM].contains(&frame.kind), "{frame:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_requests_is_told_to_go_without_a_fault() {
    let daemon = Daemon::builder(&format!("{HURRIED}{FILES}")).file("a", "hello").start().await;
    let mut client = RawH2::connect(daemon.http()).await;
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET)).await.unwrap();
    let goaway = client.until(GOAWAY).await.expect("a goodbye");
    assert_eq!(goaway.payload[4..8], [0; 4], "NO_ERROR");
    while client.next().await.is_some() {}
}
