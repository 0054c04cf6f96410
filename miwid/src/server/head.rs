//! What a request head must be before anything else is looked at, and what is known once it is.

use std::{
    net::IpAddr,
    time::{Instant, SystemTime},
};

use config::UnderscoreHeaders;
use http::{HeaderName, HeaderValue, StatusCode, Version, header, request::Parts};

use super::edge;
use crate::{
    exchange::{Context, Failure, Peer, Scheme, headers, is_call, reason},
    net::{Flaw, Verdict, content_length},
    routing::host_of,
    snapshot::Settings,
};

/// The context of a request as far as its connection alone knows it.
pub(super) fn context(peer: Peer, started: Instant, started_at: SystemTime) -> Context {
    Context {
        client_ip: peer.remote.ip().to_canonical(),
        trusted: false,
        is_edge: false,
        ray: None,
        scheme: peer.scheme,
        peer,
        host: String::new(),
        authority: String::new(),
        started,
        started_at,
        request_id: None,
        extra: None,
        sharing: None,
        site: None,
        upstream: None,
        upstream_duration: None,
        reason: None,
        offer: None,
        tunnel: None,
    }
}

/// Checks limits and host, and fills in what the head says of the client.
pub(super) fn examine(parts: &mut Parts, context: &mut Context, settings: &Settings) -> Result<(), Failure> {
    if let Some(verdict) = parts.extensions.get::<Verdict>() {
        return Err(refused(verdict, settings));
    }
    if parts.extensions.remove::<Early>().is_some() {
        judge_early(parts)?;
    }
    judge_underscores(parts, settings.underscore_headers)?;
    let parts = &*parts;
    trust(parts, context, settings);
    let target_length = parts.uri.path_and_query().map_or(0, |it| it.as_str().len());
    if target_length > settings.uri_bytes_max {
        return Err(target_too_long(settings));
    }
    limit_header(parts, settings)?;
    expectation(parts)?;
    let authority = authority(parts)?;
    context.host = host_of(authority).ok_or_else(|| bad_request("The Host header is not a host name."))?;
    context.authority = authority.to_owned();
    limit_body(parts, settings)
}

/// Marks a request that came before its handshake was over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Early;

/// RFC 8470: what changes nothing may be answered, and whoever answers is told; a client repeats the rest when it is sure.
fn judge_early(parts: &mut Parts) -> Result<(), Failure> {
    if !parts.method.is_safe() {
        let message = "This request must not come before the handshake is over.";
        return Err(Failure::client(StatusCode::TOO_EARLY, reason::EARLY_DATA, message));
    }
    parts.headers.insert(headers::EARLY_DATA, HeaderValue::from_static("1"));
    Ok(())
}

fn limit_header(parts: &Parts, settings: &Settings) -> Result<(), Failure> {
    let bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > settings.header_bytes_max || parts.headers.len() > settings.headers_max {
        return Err(header_too_large(settings));
    }
    Ok(())
}

fn target_too_long(settings: &Settings) -> Failure {
    let message = format!("The request target is longer than {} bytes.", settings.uri_bytes_max);
    Failure::client(StatusCode::URI_TOO_LONG, reason::LIMIT_URI, message).closing()
}

fn header_too_large(settings: &Settings) -> Failure {
    let message = format!(
        "The header is larger than {} bytes or has more than {} fields.",
        settings.header_bytes_max, settings.headers_max
    );
    Failure::client(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason::LIMIT_HEADER, message).closing()
}

/// What the gate found, as an answer.
fn refused(verdict: &Verdict, settings: &Settings) -> Failure {
    let (status, reason, message) = match verdict.flaw {
        Flaw::Syntax(message) => return bad_request(message),
        Flaw::Target => return target_too_long(settings),
        Flaw::Header => return header_too_large(settings),
        Flaw::Version => {
            (StatusCode::HTTP_VERSION_NOT_SUPPORTED, reason::BAD_REQUEST, "This version of HTTP is not spoken here.")
        }
        Flaw::Coding => (StatusCode::NOT_IMPLEMENTED, reason::BAD_REQUEST, "This transfer coding is not known here."),
        Flaw::Method => (StatusCode::NOT_IMPLEMENTED, reason::METHOD, "This method is not known here."),
        Flaw::Slow => (StatusCode::REQUEST_TIMEOUT, reason::HEAD_TIMEOUT, "The request did not come in time."),
    };
    Failure::client(status, reason, message).closing()
}

/// To many an app `X_Real_Ip` is the same as `X-Real-Ip`, which a proxy before it sets: a client must not set it beside.
fn judge_underscores(parts: &mut Parts, policy: UnderscoreHeaders) -> Result<(), Failure> {
    let odd = |name: &HeaderName| name.as_str().as_bytes().contains(&b'_');
    if policy == UnderscoreHeaders::Keep || !parts.headers.keys().any(odd) {
        return Ok(());
    }
    if policy == UnderscoreHeaders::Reject {
        return Err(bad_request("A header name has an underscore."));
    }
    let names: Vec<HeaderName> = parts.headers.keys().filter(|it| odd(it)).cloned().collect();
    for name in names {
        parts.headers.remove(name);
    }
    Ok(())
}

/// RFC 9110, 10.1.1: there is one expectation, and HTTP/1.0 has none.
fn expectation(parts: &Parts) -> Result<(), Failure> {
    let known = |it: &HeaderValue| it.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if parts.version == Version::HTTP_10 || parts.headers.get_all(header::EXPECT).iter().all(known) {
        return Ok(());
    }
    let message = "The expectation cannot be met.";
    Err(Failure::client(StatusCode::EXPECTATION_FAILED, reason::BAD_REQUEST, message).closing())
}

/// At once when Content-Length says so; what comes without one is counted as it is read.
fn limit_body(parts: &Parts, settings: &Settings) -> Result<(), Failure> {
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|it| content_length(it.as_bytes()));
    let bounded = settings.request_bytes_max > 0 && !is_call(parts.version, &parts.headers);
    if bounded && length.is_some_and(|it| it > settings.request_bytes_max) {
        return Err(body_too_large(settings.request_bytes_max));
    }
    Ok(())
}

pub(super) fn body_too_large(bytes_max: u64) -> Failure {
    let message = format!("The request body is larger than {bytes_max} bytes.");
    Failure::client(StatusCode::PAYLOAD_TOO_LARGE, reason::LIMIT_BODY, message).closing()
}

/// RFC 9112, 3.2: HTTP/1.1 needs exactly one Host; an absolute target wins over it, and must agree with it.
fn authority(parts: &Parts) -> Result<&str, Failure> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad_request("There is more than one Host header."));
    }
    let host = match host {
        Some(value) => Some(value.to_str().map_err(|_| bad_request("The Host header is not a host name."))?),
        None => None,
    };
    let target = parts.uri.authority().map(http::uri::Authority::as_str);
    match (target, host) {
        (Some(target), Some(host)) if !target.eq_ignore_ascii_case(host) => {
            Err(bad_request("The Host header differs from the request target."))
        }
        (Some(target), _) => Ok(target),
        (None, Some(host)) => Ok(host),
        (None, None) if parts.version == Version::HTTP_10 => Ok("_"),
        (None, None) => Err(bad_request("The Host header is missing.")),
    }
}

fn bad_request(message: &'static str) -> Failure {
    Failure::client(StatusCode::BAD_REQUEST, reason::BAD_REQUEST, message).closing()
}

/// A peer in `trusted_proxies` may say who the client is: the rightmost address of X-Forwarded-For that is not itself
/// trusted. Everybody else's claims are ignored (and dropped before an upstream sees them).
fn trust(parts: &Parts, context: &mut Context, settings: &Settings) {
    if settings.is_edge(context.client_ip) {
        return edge::trust(&parts.headers, context);
    }
    if !settings.trusts(context.client_ip) {
        return;
    }
    context.trusted = true;
    context.ray = edge::ray(&parts.headers);
    context.request_id = parts.headers.get(headers::X_REQUEST_ID).filter(|it| is_request_id(it)).cloned();
    if parts.headers.get(headers::X_FORWARDED_PROTO).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"https")) {
        context.scheme = Scheme::Https;
    }
    let hops: Vec<&str> = parts
        .headers
        .get_all(headers::X_FORWARDED_FOR)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .map(str::trim)
        .collect();
    for hop in hops.iter().rev() {
        let Ok(ip) = hop.parse::<IpAddr>() else { return };
        context.client_ip = ip.to_canonical();
        if !settings.trusts(context.client_ip) && !settings.is_edge(context.client_ip) {
            return;
        }
    }
}

/// What may go into logs and on to upstreams as it is.
fn is_request_id(value: &HeaderValue) -> bool {
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
pub(super) mod tests {
    use http::Request;

    use super::*;

    pub(in crate::server) fn settings() -> Settings {
        Settings {
            request_bytes_max: 100,
            uri_bytes_max: 20,
            header_bytes_max: 200,
            headers_max: 5,
            underscore_headers: UnderscoreHeaders::Drop,
            keepalive_timeout: std::time::Duration::from_secs(65),
            request_timeout: std::time::Duration::from_secs(30),
            server_header: true,
            request_id_header: false,
            http2_cleartext: true,
            redirect_https: None,
            proxy_protocol: false,
            trusted_proxies: vec!["10.0.0.0/8".parse().expect("a network")],
            edge: None,
            welcome: false,
        }
    }

    fn examined(remote: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Context, u16> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        let remote = format!("{remote}:1234").parse().expect("an address");
        let local = "127.0.0.1:80".parse().expect("an address");
        let peer = Peer { remote, local, scheme: Scheme::Http, secured: None };
        let mut context = context(peer, Instant::now(), SystemTime::now());
        examine(&mut parts, &mut context, &settings()).map(|()| context).map_err(|it| it.status.as_u16())
    }

    #[test]
    fn heads_are_examined() {
        let status = |uri: &str, headers: &[(&str, &str)]| examined("192.0.2.1", uri, headers).err().unwrap_or(200);
        assert_eq!(status("/", &[("host", "a.example")]), 200);
        assert_eq!(status("/", &[]), 400);
        assert_eq!(status("/", &[("host", "a"), ("host", "a")]), 400);
        assert_eq!(status("/", &[("host", "a b")]), 400);
        assert_eq!(status("http://a.example/", &[("host", "b.example")]), 400);
        assert_eq!(status("http://a.example/", &[("host", "A.example")]), 200);
        assert_eq!(status("/123456789012345678901", &[("host", "a")]), 414);
        assert_eq!(status("/", &[("host", "a"), ("x", &"x".repeat(200))]), 431);
        assert_eq!(status("/", &[("host", "a"), ("b", ""), ("c", ""), ("d", ""), ("e", ""), ("f", "")]), 431);
        assert_eq!(status("/", &[("host", "a"), ("content-length", "100")]), 200);
        assert_eq!(status("/", &[("host", "a"), ("content-length", "101")]), 413);
    }

    #[test]
    fn only_trusted_proxies_speak_for_clients() {
        let client = |remote: &str, forwarded: &str| {
            let headers = [("host", "a"), ("x-forwarded-for", forwarded)];
            examined(remote, "/", &headers).expect("a good head").client_ip.to_string()
        };
        assert_eq!(client("192.0.2.1", "203.0.113.9"), "192.0.2.1");
        assert_eq!(client("10.0.0.1", "203.0.113.9"), "203.0.113.9");
        assert_eq!(client("10.0.0.1", "1.1.1.1, 203.0.113.9, 10.0.0.2"), "203.0.113.9");
        assert_eq!(client("10.0.0.1", "junk, 203.0.113.9"), "203.0.113.9");
        assert_eq!(client("10.0.0.1", "junk"), "10.0.0.1");
    }
}
