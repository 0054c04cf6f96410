//! The app of the built-in default, so that a first try needs no interpreter: an HTTP server that says who it is.

use std::{convert::Infallible, net::SocketAddr, process::ExitCode, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Listens on `PORT` and never handles SIGTERM: restarts without a failed request must not depend on the app.
pub fn demo_app() -> ExitCode {
    let Some(port) = std::env::var("PORT").ok().and_then(|it| it.parse::<u16>().ok()) else {
        eprintln!("error: the demo app listens on the port in PORT, which is not set");
        return ExitCode::from(2);
    };
    let served =
        tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|it| it.block_on(serve(port)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    eprintln!("demo app listens on 127.0.0.1:{port}");
    let started = Instant::now();
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(&request, started)) });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(request: &Request<Incoming>, started: Instant) -> Response<Full<Bytes>> {
    let (pid, seconds) = (std::process::id(), started.elapsed().as_secs());
    let generation = std::env::var("MIWI_GENERATION").unwrap_or_default();
    let text = format!(
        "Hello from the demo app.\n\npid {pid}, generation {generation}, up {seconds} s\n{} {}\n\n\
         Try: miwictl app restart demo\n",
        request.method(),
        request.uri().path()
    );
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
