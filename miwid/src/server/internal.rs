//! Pages of miwid itself on public listeners: only for somebody on this machine who asks this machine, so that an app's
//! own `/health` always reaches the app.

use http::{Method, Request, Response, StatusCode, header};

use crate::{
    builtin::{Pages, welcome},
    exchange::{Body, Context, Failure, Inbound, reason},
    routing::Hosts,
    snapshot::{Settings, Snapshot},
    tls::CHALLENGES,
};

pub(super) async fn answer(
    pages: &Pages,
    hosts: &Hosts,
    context: &Context,
    request: &Request<Inbound>,
) -> Option<Response<Body>> {
    let path = request.uri().path();
    if !Pages::has(path) || !is_local(context, request) || !is_this_machine(hosts, &context.host) {
        return None;
    }
    Some(pages.answer(request.method().clone(), path).await.map(Body::from))
}

/// What a certificate authority looks for, under whatever name and before anything is redirected. A token that nobody
/// has asked for goes on to the site.
pub(super) fn challenge(snapshot: &Snapshot, request: &Request<Inbound>) -> Option<Response<Body>> {
    let token = request.uri().path().strip_prefix(CHALLENGES)?;
    let answer = snapshot.tls.as_ref()?.challenge(token)?;
    let mut response = Response::new(Body::from(answer));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    Some(response)
}

/// A loopback peer that speaks for nobody else.
fn is_local(context: &Context, request: &Request<Inbound>) -> bool {
    let relays = |name: &str| name.starts_with("x-forwarded-") || name.starts_with("cf-");
    let map = request.headers();
    context.peer.remote.ip().to_canonical().is_loopback()
        && !map.contains_key(header::FORWARDED)
        && !map.contains_key(header::VIA)
        && !map.keys().any(|it| relays(it.as_str()))
}

fn is_this_machine(hosts: &Hosts, host: &str) -> bool {
    (host == "localhost" || host.parse::<std::net::IpAddr>().is_ok()) && hosts.named(host).is_none()
}

/// No site answers the host: the built-in default welcomes, a configured server says so.
pub(super) fn no_site(
    settings: &Settings,
    pages: &Pages,
    method: &Method,
    path: &str,
) -> Result<Response<Body>, Failure> {
    if settings.welcome && path == "/" {
        let mut response = Response::new(if method == Method::HEAD { Body::Empty } else { Body::from(welcome(pages)) });
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html; charset=utf-8"));
        return Ok(response);
    }
    Err(Failure::client(StatusCode::NOT_FOUND, reason::NO_SITE, "No site answers this host."))
}

/// `OPTIONS *` asks about the server as a whole (RFC 9110, 9.3.7), not about a site.
pub(super) fn options() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    let allow = header::HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    response.headers_mut().insert(header::ALLOW, allow);
    response
}
