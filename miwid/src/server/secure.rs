//! What a request may not be answered for on the connection it came over: hosts that the handshake does not cover, hosts
//! that want client certificates, and plain HTTP where only HTTPS is wanted.

use std::sync::Once;

use http::{HeaderValue, Request, Response, StatusCode, header};

use super::edge;
use crate::{
    exchange::{Body, Context, Failure, Inbound, Scheme, reason},
    snapshot::Snapshot,
};

const ACME: &str = "/.well-known/acme-challenge/";

/// Whether the client has to make another connection for this host. Asked of every request: HTTP/2 clients send requests for
/// several hosts over one connection. A secure connection that cannot say what it settled is for no host.
pub(super) fn is_misdirected(snapshot: &Snapshot, context: &Context) -> bool {
    let Some(terminator) = &snapshot.tls else { return false };
    match &context.peer.secured {
        Some(secured) => !terminator.covers(secured, &context.host),
        None => context.peer.scheme == Scheme::Https,
    }
}

pub(super) fn misdirected() -> Failure {
    let message = "This connection is not for the requested host.";
    Failure::client(StatusCode::MISDIRECTED_REQUEST, reason::MISDIRECTED, message)
}

/// A redirect or a refusal for what came in cleartext and should not have.
pub(super) fn only_over_tls(
    snapshot: &Snapshot,
    context: &Context,
    request: &Request<Inbound>,
) -> Option<Result<Response<Body>, Failure>> {
    if context.peer.scheme == Scheme::Https {
        return None;
    }
    if let Some(port) = snapshot.settings.redirect_https
        && !request.uri().path().starts_with(ACME)
        && !was_secure(snapshot, context, request)
    {
        return Some(to_https(context, port, request));
    }
    let terminator = snapshot.tls.as_ref()?;
    terminator.demands_certificate(&context.host).then(|| {
        let message = "This host is only for clients with a certificate, over HTTPS.";
        Err(Failure::client(StatusCode::FORBIDDEN, reason::CLIENT_CERTIFICATE, message))
    })
}

/// A trusted proxy says that its client came over HTTPS. To redirect that client would make it come the same way again, for
/// ever.
///
/// Cloudflare is believed this much even where it is not trusted: the worst that a lie would do is that a page is not
/// redirected.
fn was_secure(snapshot: &Snapshot, context: &Context, request: &Request<Inbound>) -> bool {
    let is_edge = || snapshot.settings.stands_at_edge(context.peer.remote.ip());
    let said = || edge::visitor_is_secure(request.headers()) && (context.trusted || is_edge());
    let was = context.scheme == Scheme::Https || said();
    if was && is_edge() {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::warn!(
                host = %context.host,
                "Cloudflare comes in cleartext for visitors that came over HTTPS: the zone's SSL mode is Flexible; set it to Full (strict)"
            );
        });
    }
    was
}

/// Whether whoever asks is not served at all: with `[cloudflare] only`, those that do not come through it. Asked of every
/// request, since a connection may be older than the wish.
pub(super) fn turned_away(snapshot: &Snapshot, context: &Context) -> Option<Failure> {
    snapshot.settings.turns(context.peer.remote.ip())?;
    let message = "This server is reached through Cloudflare only.";
    Some(Failure::client(StatusCode::FORBIDDEN, reason::DENIED, message).closing())
}

fn to_https(context: &Context, port: u16, request: &Request<Inbound>) -> Result<Response<Body>, Failure> {
    let location = location(&context.host, port, request.uri().path_and_query().map_or("/", |it| it.as_str()));
    let location = location.and_then(|it| HeaderValue::from_str(&it).ok()).ok_or_else(|| {
        let message = "This server answers over HTTPS only, and the request names no host.";
        Failure::client(StatusCode::BAD_REQUEST, reason::BAD_REQUEST, message)
    })?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `None` when the client named no host.
fn location(host: &str, port: u16, path: &str) -> Option<String> {
    let host = match host {
        "_" => return None,
        address if address.contains(':') => format!("[{address}]"),
        name => name.to_owned(),
    };
    let path = if path.starts_with('/') { path } else { "/" };
    Some(if port == 443 { format!("https://{host}{path}") } else { format!("https://{host}:{port}{path}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_keep_host_path_and_query_and_name_a_port_only_when_it_is_not_443() {
        let check = |host, port, path, expected: Option<&str>| {
            assert_eq!(location(host, port, path).as_deref(), expected, "{host} {path}");
        };
        check("a.test", 443, "/x?y=1", Some("https://a.test/x?y=1"));
        check("a.test", 8443, "/", Some("https://a.test:8443/"));
        check("::1", 8443, "/a", Some("https://[::1]:8443/a"));
        check("a.test", 443, "*", Some("https://a.test/"));
        check("_", 443, "/", None);
    }
}
