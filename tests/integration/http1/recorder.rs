//! An upstream that keeps what arrives, and knows whether it arrived whole.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

#[derive(Clone, Debug)]
pub(super) struct Arrived {
    /// Method and target.
    pub line: String,
    pub headers: HeaderMap,
    /// `None`: it broke off.
    pub body: Option<Bytes>,
    pub trailers: Option<HeaderMap>,
}

pub(super) struct Recorder {
    pub address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    task: JoinHandle<()>,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let arrived = Arc::default();
        let task = tokio::spawn(serve(listener, Arc::clone(&arrived)));
        Self { address, arrived, task }
    }

    /// What has come since this was last asked.
    pub(super) fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut *self.arrived.lock().unwrap())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, arrived: Arc<Mutex<Vec<Arrived>>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let arrived = arrived.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, arrived.clone()));
            let _ = hyper::server::conn::http1::Builder::new()
                .max_headers(200)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let line = format!("{} {}", head.method, head.uri);
    let collected = body.collect().await.ok();
    let trailers = collected.as_ref().and_then(|it| it.trailers().cloned());
    let body = collected.map(http_body_util::Collected::to_bytes);
    arrived.lock().unwrap().push(Arrived { line, headers: head.headers, body, trailers });
    let text = if head.uri.path() == "/after" { "after!" } else { "a!" };
    Ok(Response::new(Full::new(Bytes::from_static(text.as_bytes()))))
}
