//! What a head says about the client (`X-Forwarded-*`, `Forwarded`, Host) and what an upstream is told of it: a stranger
//! cannot speak for another, and nothing that concerns one connection only goes further.
//!
//! An input is a byte of choices, then the target, then header lines.
#![no_main]

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header, request::Parts};
use libfuzzer_sys::{Corpus, fuzz_target};
use miwid::{
    exchange::{Context, Peer, Scheme},
    proxy::fuzzing::{prepare, strip_hop_by_hop},
    routing::host_of,
    server::fuzzing::{context, examine},
    snapshot::{Settings, Snapshot, build},
    tls::Tls,
};

const TRUSTED: &str = "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n";
const PEERS: [&str; 4] = ["10.0.0.1:5", "[2001:db8::1]:5", "192.0.2.1:5", "[::ffff:198.51.100.7]:5"];
/// What is ours to say, and never passed on when a stranger said it.
const OURS: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-start",
    "x-request-id",
    "forwarded",
];
const HOPS: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "proxy-authorization", "transfer-encoding", "upgrade"];

thread_local! {
    static SNAPSHOT: Snapshot = snapshot();
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((choices, head)) = data.split_first() else { return Corpus::Reject };
    let Some((head, peer)) = read(*choices, head) else { return Corpus::Reject };
    SNAPSHOT.with(|snapshot| judge(head, peer, &snapshot.settings));
    Corpus::Keep
});

fn read(choices: u8, head: &[u8]) -> Option<(Parts, Peer)> {
    let mut lines = head.split(|it| *it == b'\n');
    let mut request = Request::new(());
    *request.uri_mut() = Uri::try_from(lines.next()?).ok()?;
    *request.version_mut() = match choices >> 2 & 3 {
        0 => Version::HTTP_2,
        1 => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    for line in lines.filter(|it| !it.is_empty()) {
        let colon = line.iter().position(|it| *it == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    let remote = PEERS[usize::from(choices & 3)].parse().expect("an address");
    let local = "127.0.0.1:80".parse().expect("an address");
    Some((request.into_parts().0, Peer { remote, local, scheme: Scheme::Http, secured: None }))
}

fn judge(mut head: Parts, peer: Peer, settings: &Settings) {
    let mut context = context(peer);
    let said = head.headers.clone();
    if let Err(failure) = examine(&mut head, &mut context, settings) {
        return assert!(failure.status.is_client_error() && failure.close, "{failure:?}");
    }
    assert_eq!(host_of(&context.authority).as_deref(), Some(context.host.as_str()));
    is_the_client(&context, &said, settings);
    let target = head.uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
    let host = HeaderValue::from_str(&context.authority).expect("a host is a header value");
    match prepare(head, &context, &target, &host) {
        Ok(told) => {
            concerns_everybody(&told.headers, &said);
            is_one_request(&told, &host);
            tells_the_truth(&told.headers, &said, &context);
        }
        Err(failure) => assert!(matches!(failure.status.as_u16(), 400 | 508), "{failure:?}"),
    }
}

fn is_trusted(ip: IpAddr, settings: &Settings) -> bool {
    settings.trusted_proxies.iter().any(|it| it.contains(&ip))
}

/// The peer, or somebody whom an unbroken chain of trusted proxies names.
fn is_the_client(context: &Context, said: &HeaderMap, settings: &Settings) {
    let peer = context.peer.remote.ip().to_canonical();
    assert_eq!(context.trusted, is_trusted(peer, settings));
    if !context.trusted {
        return assert!(context.client_ip == peer && context.scheme == context.peer.scheme);
    }
    let lines: Vec<&str> = said.get_all("x-forwarded-for").iter().filter_map(|it| it.to_str().ok()).collect();
    let hops = lines.join(",");
    let mut last = peer;
    for hop in hops.split(',').rev() {
        if last == context.client_ip && !is_trusted(last, settings) {
            return;
        }
        let Ok(hop) = hop.trim().parse::<IpAddr>() else { break };
        assert!(is_trusted(last, settings), "{last} was believed");
        last = hop.to_canonical();
    }
    assert_eq!(last, context.client_ip);
}

fn concerns_everybody(told: &HeaderMap, said: &HeaderMap) {
    for name in HOPS {
        assert!(!told.contains_key(name), "{name} went on");
    }
    let named = said.get_all(header::CONNECTION).iter().flat_map(|it| it.as_bytes().split(|it| *it == b','));
    for name in named.filter_map(|it| HeaderName::from_bytes(it.trim_ascii()).ok()) {
        let replaced =
            OURS.contains(&name.as_str()) || ["host", "content-length", "via", "te"].contains(&name.as_str());
        assert!(replaced || !told.contains_key(&name), "{name} went on");
    }
    if said.contains_key(header::TRANSFER_ENCODING) {
        assert!(!told.contains_key(header::CONTENT_LENGTH), "two framings");
    }
    assert!(told.get_all(header::TE).iter().all(|it| it == "trailers"));
    let mut again = told.clone();
    strip_hop_by_hop(&mut again);
    again.extend(told.get(header::TE).map(|it| (header::TE, it.clone())));
    assert_eq!(&again, told, "nothing was left to take off");
}

fn is_one_request(told: &Parts, host: &HeaderValue) {
    assert!(told.uri.scheme().is_none() && told.uri.authority().is_none(), "{:?}", told.uri);
    assert_eq!(told.version, Version::HTTP_11);
    assert_eq!(told.headers.get_all(header::HOST).iter().collect::<Vec<_>>(), [host]);
    assert!(told.headers.get_all(header::COOKIE).iter().count() <= 1);
    assert!(!told.headers.contains_key(header::EXPECT));
}

fn tells_the_truth(told: &HeaderMap, said: &HeaderMap, context: &Context) {
    let one = |name: &str| {
        let values: Vec<_> = told.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        values[0].as_bytes()
    };
    let peer = context.peer.remote.ip().to_canonical().to_string();
    let forwarded = one("forwarded");
    let node = if peer.contains(':') { format!("\"[{peer}]\"") } else { peer.clone() };
    let ours = format!("for={node};host=\"{}\";proto={}", context.authority, context.scheme.as_str());
    assert_eq!(one("x-forwarded-proto"), context.scheme.as_str().as_bytes());
    assert!(one("via").ends_with(b" miwid"));
    if context.trusted {
        assert!(
            one("x-forwarded-for").rsplit(|it| *it == b',').next().is_some_and(|it| it.trim_ascii() == peer.as_bytes())
        );
        assert!(forwarded.ends_with(ours.as_bytes()));
        return;
    }
    assert_eq!(one("x-forwarded-for"), peer.as_bytes());
    assert_eq!(forwarded, ours.as_bytes());
    assert_eq!(one("x-forwarded-host"), context.authority.as_bytes());
    assert!(one("x-forwarded-port").iter().all(u8::is_ascii_digit));
    assert!(one("x-request-start").starts_with(b"t="));
    assert!(!told.keys().any(|it| it.as_str().starts_with("cf-")), "{told:?}");
    // None was made here, so none may be there.
    assert!(!told.contains_key("x-request-id"), "{said:?}");
}

fn snapshot() -> Snapshot {
    let loaded = config::load_text("m.toml".as_ref(), TRUSTED, &[], &config::Capabilities::default());
    let loaded = loaded.expect("a good configuration");
    build(&loaded.config, 1, &Default::default(), Tls::rehearsal().terminator(&loaded.config))
        .expect("a snapshot of it")
}
