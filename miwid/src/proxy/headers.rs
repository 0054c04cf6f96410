//! What of a head is forwarded, and what is added. Pure. The one thing to get wrong: what a client says about itself
//! (`X-Forwarded-For` and its like) is believed only from a trusted proxy.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request,
    uri::{self, Authority, PathAndQuery},
};

use super::{fields::Fields, stamp::Stamp};
use crate::{
    exchange::{
        Context, Failure, Scheme,
        headers::{
            X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REQUEST_ID, X_REQUEST_START,
        },
        reason,
    },
    net::content_length,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// What else is dealt with in a request.
static NOTED: [HeaderName; 11] = [
    header::COOKIE,
    header::EXPECT,
    header::FORWARDED,
    header::TE,
    header::VIA,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PROTO,
    X_REQUEST_ID,
    X_REQUEST_START,
];
/// As often as this a request may have passed a miwid before it must be going in circles.
const PASSES_MAX: usize = 8;

/// Which of some names a head had. Most have next to none, and one look at each field costs less than a search for each name.
#[derive(Clone, Copy)]
struct Seen {
    names: &'static [HeaderName],
    bits: u32,
}

impl Seen {
    fn of(names: &'static [HeaderName], headers: &HeaderMap) -> Self {
        let place = |it: &HeaderName| names.iter().position(|name| name == it);
        let bits = headers.keys().filter_map(place).fold(0, |bits, place| bits | 1 << place);
        Self { names, bits }
    }

    fn any(self) -> bool {
        self.bits != 0
    }

    fn has(self, name: &HeaderName) -> bool {
        self.any() && self.names().any(|it| it == name)
    }

    fn names(self) -> impl Iterator<Item = &'static HeaderName> {
        self.names.iter().enumerate().filter(move |(place, _)| self.bits & (1 << place) != 0).map(|(_, name)| name)
    }
}

/// Removes what concerns one connection only, including everything that `Connection` names.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let seen = Seen::of(&HOP_BY_HOP, headers);
    if seen.any() {
        strip(headers, seen);
    }
    settle_length(headers);
}

fn strip(headers: &mut HeaderMap, seen: Seen) {
    // These go anyway.
    let usual = |it: &[u8]| [&b"keep-alive"[..], b"upgrade", b"te"].iter().any(|usual| usual.eq_ignore_ascii_case(it));
    if seen.has(&header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|it| it.as_bytes().split(|it| *it == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|it| !usual(it))
            .filter_map(|it| HeaderName::from_bytes(it).ok())
            // Naming these would let a client forge a request without them.
            .filter(|it| it != header::HOST && it != header::CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    // RFC 9112, 6.3: chunks override a length, which would frame the message wrongly on the next hop.
    if seen.has(&header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in seen.names() {
        headers.remove(name);
    }
}

/// One length, written once. A list or a repetition of the same number counts as that number (RFC 9112, 6.3), and hyper
/// reads it so; whoever comes next may not. What is no length at all (a HEAD's is never read) says nothing.
fn settle_length(headers: &mut HeaderMap) {
    let mut said = headers.get_all(header::CONTENT_LENGTH).iter();
    match (said.next(), said.next()) {
        (None, _) => return,
        (Some(one), None)
            if one == "0" || (!one.as_bytes().starts_with(b"0") && content_length(one.as_bytes()).is_some()) =>
        {
            return;
        }
        _ => {}
    }
    let said = headers.get_all(header::CONTENT_LENGTH);
    let mut lengths =
        said.iter().flat_map(|it| it.as_bytes().split(|it| *it == b',')).map(|it| content_length(it.trim_ascii()));
    let first = lengths.next().flatten();
    match first.filter(|_| lengths.all(|it| it == first)) {
        Some(length) => _ = headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length)),
        None => _ = headers.remove(header::CONTENT_LENGTH),
    }
}

/// Turns the client's head into the one for the upstream, and the fields that go behind its own. `host` is what goes into
/// `Host`.
pub(super) fn prepare(
    mut head: request::Parts,
    context: &Context,
    target: &str,
    host: &HeaderValue,
) -> Result<(request::Parts, Fields), Failure> {
    let noted = Seen::of(&NOTED, &head.headers);
    if noted.has(&header::VIA) {
        check_loop(&head.headers)?;
    }
    let trailers = noted.has(&header::TE) && head.headers.get(header::TE).is_some_and(|it| lists(it, "trailers"));
    let via = match head.version {
        Version::HTTP_2 => "2 miwid",
        Version::HTTP_10 => "1.0 miwid",
        _ => "1.1 miwid",
    };
    let headers = &mut head.headers;
    strip_hop_by_hop(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // Answered by our own server as soon as the body is asked for.
    if noted.has(&header::EXPECT) {
        headers.remove(header::EXPECT);
    }
    if noted.has(&header::COOKIE) {
        join_cookies(headers);
    }
    headers.insert(header::HOST, host.clone());
    let mut more = Fields::default();
    extend(headers, noted, &mut more, header::VIA, |it| it.extend_from_slice(via.as_bytes()));
    forwarding(headers, noted, &mut more, context);
    if let Some(uri) = retarget(&head, target)? {
        head.uri = uri;
    }
    head.version = Version::HTTP_11;
    Ok((head, more))
}

/// `None`: the target is what it was.
fn retarget(head: &request::Parts, target: &str) -> Result<Option<Uri>, Failure> {
    if head.method == Method::OPTIONS && target == "*" {
        return Ok(Some(Uri::from_static("*")));
    }
    if head.uri.authority().is_none() && head.uri.path_and_query().is_some_and(|it| it == target) {
        return Ok(None);
    }
    PathAndQuery::try_from(target).map(|it| Some(Uri::from(it))).map_err(|error| {
        Failure::client(http::StatusCode::BAD_REQUEST, reason::BAD_REQUEST, "The request target is not valid.")
            .detail(error.to_string())
    })
}

/// A head for HTTP/2, where scheme and authority are of the target and `Host` is not needed.
pub(super) fn for_http2(mut head: request::Parts, more: &Fields, scheme: Scheme) -> request::Parts {
    head.headers.extend(more.to_map());
    let host = head.headers.remove(header::HOST);
    let authority = host.and_then(|it| Authority::try_from(it.as_bytes()).ok());
    let mut target = std::mem::take(&mut head.uri).into_parts();
    target.scheme = Some(if scheme == Scheme::Https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    target.authority = Some(authority.unwrap_or(Authority::from_static("localhost")));
    target.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    // All three are there, which is what a target in absolute form consists of.
    head.uri = Uri::from_parts(target).unwrap_or_default();
    head.version = Version::HTTP_2;
    head
}

fn check_loop(headers: &HeaderMap) -> Result<(), Failure> {
    let passes = headers.get_all(header::VIA).iter().flat_map(|it| it.as_bytes().split(|it| *it == b','));
    if passes.filter(|it| it.trim_ascii().ends_with(b" miwid")).count() < PASSES_MAX {
        return Ok(());
    }
    Err(Failure::server(http::StatusCode::LOOP_DETECTED, reason::LOOP, "The request goes round in circles."))
}

/// HTTP/2 may split a cookie into crumbs; HTTP/1.1 knows one Cookie header only.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

fn forwarding(headers: &mut HeaderMap, noted: Seen, more: &mut Fields, context: &Context) {
    disbelieve(headers, context);
    let stamp = Stamp::of(context);
    extend(headers, noted, more, X_FORWARDED_FOR, |into| stamp.write_peer(into));
    extend(headers, noted, more, header::FORWARDED, |into| stamp.write_forwarded(into));
    if noted.has(&X_FORWARDED_PROTO) {
        headers.remove(X_FORWARDED_PROTO);
    }
    more.put(&X_FORWARDED_PROTO, stamp.scheme.as_str().as_bytes());
    // What a trusted proxy has said already stays.
    let mut default = |name: HeaderName, value: &dyn Fn(&mut Vec<u8>)| {
        if !noted.has(&name) || !headers.contains_key(&name) {
            more.write(&name, value);
        }
    };
    default(X_FORWARDED_HOST, &|into| into.extend_from_slice(stamp.authority.as_bytes()));
    default(X_FORWARDED_PORT, &|into| stamp.write_port(into));
    default(X_REQUEST_START, &|into| stamp.write_start(into));
    if let Some(id) = &context.request_id {
        if noted.has(&X_REQUEST_ID) {
            headers.remove(X_REQUEST_ID);
        }
        more.put(&X_REQUEST_ID, id.as_bytes());
    }
}

/// Removes what a client may not say of itself. Spelled with `_`, a name reaches an app's CGI variables as if it had been
/// spelled with `-`, past every proxy that did not think of it: such a twin goes even when the peer is trusted.
///
/// Cloudflare's edge is believed in what Cloudflare writes; what else is there, a visitor has written.
fn disbelieve(headers: &mut HeaderMap, context: &Context) {
    let believed = |name: &str| match (context.trusted, context.is_edge) {
        (false, _) => false,
        (true, false) => true,
        (true, true) => name.starts_with("cf-") || EDGE_WRITES.contains(&name),
    };
    let claims = |it: &&HeaderName| match it.as_str() {
        twin if twin.as_bytes().contains(&b'_') => is_claim(&twin.replace('_', "-")),
        name => is_claim(name) && !believed(name),
    };
    let disbelieved: Vec<HeaderName> = headers.keys().filter(claims).cloned().collect();
    for name in disbelieved {
        headers.remove(name);
    }
}

/// Beside its own `CF-...`.
const EDGE_WRITES: [&str; 2] = ["x-forwarded-for", "x-forwarded-proto"];

/// Names under which proxies say who a client is and how it came.
pub(super) fn is_claim(name: &str) -> bool {
    const CLAIMS: [&str; 10] = [
        "forwarded",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "fastly-client-ip",
        "x-request-start",
        "x-request-id",
        "x-url-scheme",
        "front-end-https",
    ];
    name.starts_with("x-forwarded") || name.starts_with("cf-") || CLAIMS.contains(&name)
}

/// A list, with ours behind what is said already, in one line: some apps read only the first.
fn extend(headers: &mut HeaderMap, noted: Seen, more: &mut Fields, name: HeaderName, ours: impl FnOnce(&mut Vec<u8>)) {
    if !noted.has(&name) {
        return more.write(&name, ours);
    }
    more.write(&name, |into| {
        for said in headers.get_all(&name) {
            into.extend_from_slice(said.as_bytes());
            into.extend_from_slice(b", ");
        }
        ours(into);
    });
    headers.remove(name);
}

/// Whether a comma-separated header names `token`.
pub(super) fn lists(value: &HeaderValue, token: &str) -> bool {
    value.as_bytes().split(|it| *it == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The protocol that the client wants to change to (never h2c: an upstream speaks HTTP/1.1 with us).
pub(super) fn upgrade_wanted<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let asks = headers.get_all(header::CONNECTION).iter().any(|it| lists(it, "upgrade"));
    let protocol = headers.get(header::UPGRADE)?;
    (asks && request.version() == Version::HTTP_11 && !lists(protocol, "h2c")).then(|| protocol.clone())
}

/// RFC 8441 over HTTP/1.1 (its section 5): the CONNECT becomes the GET that asks for the same protocol.
pub(super) fn websocket_over_http1(head: &mut request::Parts) {
    head.method = Method::GET;
    head.headers.insert(header::SEC_WEBSOCKET_KEY, websocket_key());
    head.headers.entry(header::SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
}

/// Sixteen random bytes in base64: the last digit before the padding has but two bits.
fn websocket_key() -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key = [b'='; 24];
    for digit in &mut key[..21] {
        *digit = DIGITS[fastrand::usize(..64)];
    }
    key[21] = DIGITS[fastrand::usize(..4) * 16];
    HeaderValue::from_bytes(&key).expect("base64 is visible ASCII")
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, Instant, UNIX_EPOCH};

    use super::*;
    use crate::exchange::Peer;

    pub(crate) fn context(remote: &str) -> Context {
        let remote: std::net::SocketAddr = remote.parse().unwrap();
        Context {
            peer: Peer { remote, local: "127.0.0.1:80".parse().unwrap(), scheme: Scheme::Http, secured: None },
            client_ip: remote.ip(),
            trusted: false,
            is_edge: false,
            ray: None,
            scheme: Scheme::Http,
            host: "shop.example".into(),
            authority: "shop.example:8080".into(),
            started: Instant::now(),
            started_at: UNIX_EPOCH + Duration::from_millis(1234),
            request_id: Some(HeaderValue::from_static("id-1")),
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

    fn prepared(request: &[(&str, &str)], context: &Context) -> HeaderMap {
        let mut builder = Request::builder().uri("/x");
        for (name, value) in request {
            builder = builder.header(*name, *value);
        }
        let (head, ()) = builder.body(()).unwrap().into_parts();
        let (mut head, more) = prepare(head, context, "/x", &HeaderValue::from_static("up:1")).unwrap();
        head.headers.extend(more.to_map());
        head.headers
    }

    #[test]
    fn hop_by_hop_headers_go_and_the_rest_stays() {
        let headers = prepared(
            &[
                ("connection", "close, X-Private"),
                ("close", "no"),
                ("x-private", "1"),
                ("keep-alive", "5"),
                ("te", "gzip, trailers"),
                ("transfer-encoding", "chunked"),
                ("proxy-authorization", "x"),
                ("upgrade", "h2c"),
                ("expect", "100-continue"),
                ("accept", "a"),
                ("authorization", "b"),
            ],
            &context("192.0.2.1:5"),
        );
        for gone in [
            "connection",
            "close",
            "x-private",
            "keep-alive",
            "transfer-encoding",
            "proxy-authorization",
            "upgrade",
            "expect",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(
            (&headers["te"], &headers["accept"], &headers["authorization"]),
            (&HeaderValue::from_static("trailers"), &HeaderValue::from_static("a"), &HeaderValue::from_static("b"))
        );
    }

    #[test]
    fn a_length_goes_on_written_once() {
        let check = |said: &[&str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for length in said {
                headers.append(header::CONTENT_LENGTH, length.parse().unwrap());
            }
            strip_hop_by_hop(&mut headers);
            let told: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().collect();
            assert_eq!(told, expected.iter().collect::<Vec<_>>(), "{said:?}");
        };
        check(&[], None);
        check(&["0"], Some("0"));
        check(&["105"], Some("105"));
        check(&["5", "5"], Some("5"));
        check(&["5, 5"], Some("5"));
        check(&["5,5", "05"], Some("5"));
        check(&["007"], Some("7"));
        for nonsense in [&["5, 6"][..], &["5", "6"], &[""], &["x"], &["+5"], &["5,"], &["99999999999999999999"]] {
            check(nonsense, None);
        }
    }

    #[test]
    fn a_client_cannot_say_where_it_comes_from() {
        let forged = [
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded_for", "1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("x_real_ip", "1.1.1.1"),
            ("true-client-ip", "1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "mine"),
        ];
        let headers = prepared(&forged, &context("192.0.2.1:5"));
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        for gone in ["x_forwarded_for", "x-forwarded_for", "x-real-ip", "x_real_ip", "true-client-ip"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["forwarded"], "for=192.0.2.1;host=\"shop.example:8080\";proto=http");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "shop.example:8080");
        assert_eq!(headers["x-forwarded-port"], "8080");
        assert_eq!(headers["x-request-id"], "id-1");
        assert_eq!(headers["x-request-start"], "t=1234");
        assert_eq!(headers["via"], "1.1 miwid");
        assert_eq!(headers["host"], "up:1");
    }

    #[test]
    fn a_trusted_proxy_is_extended() {
        let mut context = context("[2001:db8::1]:5");
        context.trusted = true;
        context.scheme = Scheme::Https;
        let said = [
            ("x-forwarded-for", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("x-request-start", "t=1"),
            ("via", "1.1 edge"),
        ];
        let headers = prepared(&said, &context);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 2001:db8::1");
        assert_eq!(headers["forwarded"], "for=1.1.1.1, for=\"[2001:db8::1]\";host=\"shop.example:8080\";proto=https");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-request-start"], "t=1");
        assert_eq!(headers["via"], "1.1 edge, 1.1 miwid");
    }

    #[test]
    fn cookie_crumbs_become_one_header() {
        let headers = prepared(&[("cookie", "a=1"), ("cookie", "b=2")], &context("192.0.2.1:5"));
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }

    #[test]
    fn a_request_that_goes_in_circles_is_ended() {
        let via = ["1.1 miwid"; PASSES_MAX].join(", ");
        let (head, ()) = Request::builder().header("via", via).body(()).unwrap().into_parts();
        let failure = prepare(head, &context("192.0.2.1:5"), "/", &HeaderValue::from_static("x")).unwrap_err();
        assert_eq!((failure.status.as_u16(), failure.reason), (508, reason::LOOP));
    }
}
