//! HTTP/3: every connection has a socket of its own and so many requests under way.

use std::{future::poll_fn, io, net::SocketAddr, rc::Rc, sync::Arc};

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use quinn::{ClientConfig, Endpoint, TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use tokio::task::JoinSet;

use crate::{
    Aim,
    result::Count,
    tls::{self, Sessions},
};

/// Windows that never make the server wait for the load.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    aim: Aim,
    #[arg(long, default_value_t = 16)]
    streams: usize,
}

type Sender = SendRequest<OpenStreams, Bytes>;

pub(crate) async fn run(options: Options) -> io::Result<()> {
    let client = client()?;
    let (mut senders, mut drivers, mut endpoints) = (Vec::new(), JoinSet::new(), Vec::new());
    for _ in 0..options.aim.connections {
        let mut endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        endpoint.set_default_client_config(client.clone());
        let connection = endpoint
            .connect(options.aim.address, "localhost")
            .map_err(io::Error::other)?
            .await
            .map_err(io::Error::other)?;
        let (mut driver, sender) =
            h3::client::new(h3_quinn::Connection::new(connection)).await.map_err(io::Error::other)?;
        drivers.spawn_local(async move { poll_fn(|context| driver.poll_close(context)).await });
        senders.push(sender);
        endpoints.push(endpoint);
    }
    let count = Rc::new(Count::until(options.aim.seconds));
    let uri: http::Uri = format!("https://localhost:{}{}", options.aim.address.port(), options.aim.path)
        .parse()
        .map_err(io::Error::other)?;
    let mut tasks = JoinSet::new();
    for sender in &senders {
        for _ in 0..options.streams {
            tasks.spawn_local(ask(sender.clone(), uri.clone(), count.clone()));
        }
    }
    while tasks.join_next().await.is_some() {}
    count.tell(&[])
}

fn client() -> io::Result<ClientConfig> {
    let tls = tls::client(b"h3", Sessions::Fresh).map_err(io::Error::other)?;
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(io::Error::other)?));
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
    transport.receive_window(VarInt::from_u32(CONNECTION_WINDOW));
    client.transport_config(Arc::new(transport));
    Ok(client)
}

/// One request after another; a failure ends it, for what is broken stays broken.
async fn ask(mut sender: Sender, uri: http::Uri, count: Rc<Count>) {
    while !count.is_over() {
        match exchange(&mut sender, &uri).await {
            Ok(()) => count.answered(),
            Err(error) => return count.failed(error),
        }
    }
}

async fn exchange(sender: &mut Sender, uri: &http::Uri) -> io::Result<()> {
    let request = http::Request::get(uri.clone()).body(()).map_err(io::Error::other)?;
    let mut stream = sender.send_request(request).await.map_err(io::Error::other)?;
    stream.finish().await.map_err(io::Error::other)?;
    let response = stream.recv_response().await.map_err(io::Error::other)?;
    if response.status() != http::StatusCode::OK {
        return Err(io::Error::other(format!("answered with {}", response.status())));
    }
    while let Some(mut piece) = stream.recv_data().await.map_err(io::Error::other)? {
        piece.advance(piece.remaining());
    }
    Ok(())
}
