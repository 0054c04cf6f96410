//! The double's other interface, for programs that are not its test: JSON over plain HTTP/1.1.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    double::Cloudflare,
    faults::Rule,
    state::{Token, Zone},
};

impl Cloudflare {
    /// Answers on `listener` for ever.
    pub async fn control(self: Arc<Self>, listener: TcpListener) {
        let local = listener.local_addr().expect("a bound listener has an address");
        assert!(local.ip().is_loopback(), "the double listens on the loopback only");
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let this = self.clone();
            let service = service_fn(move |request| {
                let this = this.clone();
                async move { Ok::<_, Infallible>(this.steer(request).await) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }

    async fn steer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|it| it.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (status, said) = match self.steered(parts.method.as_str(), parts.uri.path(), &body) {
            Ok(said) => (StatusCode::OK, said),
            Err(why) => (StatusCode::BAD_REQUEST, json!({ "error": why })),
        };
        let mut response = Response::new(Full::new(Bytes::from(said.to_string())));
        *response.status_mut() = status;
        response
    }

    fn steered(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        match (method, path) {
            ("GET", "/control/requests") => Ok(json!(self.requests())),
            ("GET", "/control/violations") => Ok(json!(self.violations())),
            ("GET", "/control/certs") => Ok(self.certificates().iter().map(super::Issued::shown).collect()),
            ("POST", "/control/rules") => Ok(json!(self.rule(Rule::read(body)?))),
            ("POST", "/control/reset") => Ok(json!(self.no_rules())),
            ("POST", "/control/up") => Ok(json!(self.set_open(true))),
            ("POST", "/control/down") => Ok(json!(self.set_open(false))),
            ("POST", "/control/clock") => {
                let seconds = body["advance_s"].as_u64().ok_or("`advance_s` is a number")?;
                Ok(json!(self.advance(Duration::from_secs(seconds))))
            }
            ("POST", "/control/tokens") => {
                let value = body["value"].as_str().ok_or("`value` is a text")?;
                Ok(json!(self.add_token(Token::user(value))))
            }
            ("POST", "/control/zones") => {
                let name = body["name"].as_str().ok_or("`name` is a text")?;
                Ok(json!(self.add_zone(Zone::new(name))))
            }
            ("POST", "/control/revoke") => {
                let id = body["id"].as_str().ok_or("`id` is a text")?;
                Ok(json!(self.revoke(id)))
            }
            ("GET", "/control/metrics") => Ok(json!({ "requests": self.state().requests.len() })),
            _ => Err(format!("there is no {method} {path}")),
        }
    }
}
