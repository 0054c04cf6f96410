//! Alive, ready, counted. `/health` answers 200 while every worker moves; `/ready` says in JSON why it is not.

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Method, Request, Response, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::telemetry::{Metrics, Readiness, State as Readies};

/// What the pages read. Cheap to clone.
#[derive(Clone)]
pub struct Pages {
    pub readiness: Readiness,
    pub metrics: Metrics,
    router: Router,
}

impl Pages {
    pub fn new(readiness: Readiness, metrics: Metrics) -> Self {
        let router = Router::new()
            .route("/health", get(health))
            .route("/ready", get(ready))
            .route("/metrics", get(exposition))
            .with_state((readiness.clone(), metrics.clone()));
        Self { readiness, metrics, router }
    }

    pub fn has(path: &str) -> bool {
        matches!(path, "/health" | "/ready" | "/metrics")
    }

    pub async fn answer(&self, method: Method, path: &str) -> Response<Bytes> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        let response = self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map(|it| it.to_bytes()).unwrap_or_default();
        Response::from_parts(parts, body)
    }
}

/// The admin listener, until `stop` resolves.
pub async fn serve(
    listener: TcpListener,
    pages: Pages,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, pages.router).with_graceful_shutdown(stop).await
}

type Sources = State<(Readiness, Metrics)>;

async fn health(State((readiness, _)): Sources) -> Response<Body> {
    match readiness.stuck_workers().as_slice() {
        [] => (StatusCode::OK, "ok\n").into_response(),
        stuck => (StatusCode::SERVICE_UNAVAILABLE, format!("stuck workers: {stuck:?}\n")).into_response(),
    }
}

async fn ready(State((readiness, _)): Sources) -> Response<Body> {
    let (state, status) = match readiness.state() {
        Readies::Starting => ("starting", StatusCode::SERVICE_UNAVAILABLE),
        Readies::Ready => ("ready", StatusCode::OK),
        Readies::Degraded => ("degraded", StatusCode::OK),
        Readies::Draining => ("draining", StatusCode::SERVICE_UNAVAILABLE),
    };
    (status, axum::Json(serde_json::json!({ "state": state, "reasons": readiness.reasons() }))).into_response()
}

async fn exposition(State((_, metrics)): Sources) -> Response<Body> {
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, TEXT)], metrics.exposition()).into_response()
}
