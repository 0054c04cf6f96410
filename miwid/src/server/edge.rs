//! What a peer at Cloudflare's edge says of its client. Pure. Whoever asks has looked at the peer's address first.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName};

use crate::exchange::{
    Context, Scheme,
    headers::{CF_CONNECTING_IP, CF_CONNECTING_IPV6, CF_RAY, CF_VISITOR, X_FORWARDED_PROTO},
};

/// `230b030023ae2822-SJC`, with room for what comes.
const RAY_MAX: usize = 64;

/// The client is whom CF-Connecting-IP names, and nobody whom X-Forwarded-For does: its left end is a visitor's to write.
pub(super) fn trust(headers: &HeaderMap, context: &mut Context) {
    (context.trusted, context.is_edge) = (true, true);
    context.ray = ray(headers);
    let said = only(headers, X_FORWARDED_PROTO);
    if said.is_some_and(|it| it.eq_ignore_ascii_case("https")) || visitor_is_secure(headers) {
        context.scheme = Scheme::Https;
    }
    match client(headers) {
        Some(ip) => context.client_ip = ip,
        None => tracing::debug!(peer = %context.client_ip, "Cloudflare does not say who the client is"),
    }
}

/// With Pseudo IPv4 a made-up address stands in the place of the IPv6 one, which stands beside it.
fn client(headers: &HeaderMap) -> Option<IpAddr> {
    let address = |name| only(headers, name)?.parse::<IpAddr>().ok();
    let ip = address(CF_CONNECTING_IP)?.to_canonical();
    let is_made_up = matches!(ip, IpAddr::V4(ip) if ip >= Ipv4Addr::new(240, 0, 0, 0));
    Some(address(CF_CONNECTING_IPV6).filter(|_| is_made_up).unwrap_or(ip))
}

/// The value of a field that is there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

pub(super) fn ray(headers: &HeaderMap) -> Option<Box<str>> {
    let is_ray =
        |it: &&str| (1..=RAY_MAX).contains(&it.len()) && it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
    only(headers, CF_RAY).filter(is_ray).map(Into::into)
}

/// `{"scheme":"https"}`: over what the visitor came to Cloudflare.
pub(super) fn visitor_is_secure(headers: &HeaderMap) -> bool {
    only(headers, CF_VISITOR).is_some_and(|it| it.replace(' ', "").contains("\"scheme\":\"https\""))
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::{exchange::Peer, server::head::context};

    fn believed(fields: &[(&'static str, &str)]) -> (String, Scheme, Option<String>) {
        let remote = "104.16.0.1:443".parse().expect("an address");
        let peer = Peer { remote, local: remote, scheme: Scheme::Http, secured: None };
        let mut context = context(peer, Instant::now(), SystemTime::now());
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        trust(&headers, &mut context);
        assert!(context.trusted && context.is_edge);
        (context.client_ip.to_string(), context.scheme, context.ray.map(Into::into))
    }

    #[test]
    fn the_client_is_whom_cf_connecting_ip_names_if_it_names_one() {
        for (fields, expected) in [
            (&[("cf-connecting-ip", "203.0.113.9")][..], "203.0.113.9"),
            (&[("cf-connecting-ip", "2001:db8::9")], "2001:db8::9"),
            (&[("cf-connecting-ip", "::ffff:203.0.113.9")], "203.0.113.9"),
            (&[("cf-connecting-ip", "203.0.113.9"), ("x-forwarded-for", "198.51.100.1")], "203.0.113.9"),
            (&[("x-forwarded-for", "198.51.100.1")], "104.16.0.1"),
            (&[("cf-connecting-ip", "203.0.113.9, 198.51.100.1")], "104.16.0.1"),
            (&[("cf-connecting-ip", "203.0.113.9"), ("cf-connecting-ip", "198.51.100.1")], "104.16.0.1"),
            (&[("cf-connecting-ip", "203.0.113.9:80")], "104.16.0.1"),
            (&[("cf-connecting-ip", "unknown")], "104.16.0.1"),
            (&[("cf-connecting-ip", "")], "104.16.0.1"),
            (&[("cf-connecting-ip", "240.1.2.3"), ("cf-connecting-ipv6", "2001:db8::9")], "2001:db8::9"),
            (&[("cf-connecting-ip", "203.0.113.9"), ("cf-connecting-ipv6", "2001:db8::9")], "203.0.113.9"),
        ] {
            assert_eq!(believed(fields).0, expected, "{fields:?}");
        }
    }

    #[test]
    fn the_scheme_is_the_visitors() {
        for (fields, expected) in [
            (&[][..], Scheme::Http),
            (&[("x-forwarded-proto", "HTTPS")], Scheme::Https),
            (&[("x-forwarded-proto", "http")], Scheme::Http),
            (&[("cf-visitor", "{\"scheme\": \"https\"}")], Scheme::Https),
            (&[("cf-visitor", "{\"scheme\":\"http\"}")], Scheme::Http),
        ] {
            assert_eq!(believed(fields).1, expected, "{fields:?}");
        }
    }

    #[test]
    fn a_ray_is_a_word() {
        let long = "a".repeat(65);
        for (value, expected) in [
            ("230b030023ae2822-SJC", Some("230b030023ae2822-SJC")),
            ("a b", None),
            ("\"", None),
            ("", None),
            (&long, None),
        ] {
            assert_eq!(believed(&[("cf-ray", value)]).2.as_deref(), expected, "{value}");
        }
    }
}
