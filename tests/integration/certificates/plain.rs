//! A client of the double that sends exactly what a test says, good or bad.

use std::sync::Arc;

use bytes::Bytes;
use harness::cloudflare::Cloudflare;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer, pki_types::pem::PemObject};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(super) const JSON: (&str, &str) = ("content-type", "application/json");

pub(super) fn bearer(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

/// The answer's status and body; a body that is no JSON is a JSON string.
pub(super) async fn call(
    double: &Cloudflare,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, Value) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(double.ca().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(double.address()).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(format!("/client/v4{path}"))
        .header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map(|it| it.to_bytes()).unwrap_or_default();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| text()))
}

/// Asks as miwid would: token (but not where everybody may ask), agent, JSON.
pub(super) async fn ask(double: &Cloudflare, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let token = bearer(Cloudflare::TOKEN);
    let mut headers = vec![("user-agent", "test"), ("accept", "application/json")];
    if path != "/ips" {
        headers.push((token.0, &*token.1));
    }
    if body.is_some() {
        headers.push(JSON);
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    call(double, method, path, &headers, body.as_bytes()).await
}

/// A signing request for a new P-256 key.
pub(super) fn csr() -> String {
    signing_request(&KeyPair::generate().unwrap())
}

pub(super) fn signing_request(key: &KeyPair) -> String {
    let mut params = CertificateParams::new(vec!["example.com".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    // PEM of other tools ends its lines with CR LF; Cloudflare wants LF.
    params.serialize_request(key).unwrap().pem().unwrap().replace("\r\n", "\n")
}

pub(super) fn creation(hostnames: &[&str]) -> Value {
    json!({ "csr": csr(), "hostnames": hostnames, "request_type": "origin-ecc", "requested_validity": 90 })
}
