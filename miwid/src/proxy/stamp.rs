//! What miwid says of the client to whoever is asked next.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use super::fields::{address, decimal};
use crate::exchange::{Context, Scheme};

#[derive(Clone, Copy)]
pub struct Stamp<'a> {
    /// Who spoke to us.
    pub peer: IpAddr,
    /// As the client sees it.
    pub scheme: Scheme,
    /// As in its Host header, which has been found to be a host.
    pub authority: &'a str,
    pub started_at: SystemTime,
    pub request_id: &'a [u8],
}

impl<'a> Stamp<'a> {
    pub(super) fn of(context: &'a Context) -> Self {
        Self {
            peer: context.peer.remote.ip().to_canonical(),
            scheme: context.scheme,
            authority: &context.authority,
            started_at: context.started_at,
            request_id: context.request_id.as_ref().map_or(b"", |it| it.as_bytes()),
        }
    }

    /// All of it, behind a head of HTTP/1.1 that says nothing of the kind itself.
    pub(super) fn write(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(b"via: 1.1 miwid\r\nx-forwarded-for: ");
        let begun = into.len();
        self.write_peer(into);
        let peer = begun..into.len();
        into.extend_from_slice(b"\r\nforwarded: ");
        self.write_forwarded_for(into, |into| into.extend_from_within(peer));
        into.extend_from_slice(b"\r\nx-forwarded-proto: ");
        into.extend_from_slice(self.scheme.as_str().as_bytes());
        into.extend_from_slice(b"\r\nx-forwarded-host: ");
        into.extend_from_slice(self.authority.as_bytes());
        into.extend_from_slice(b"\r\nx-forwarded-port: ");
        self.write_port(into);
        into.extend_from_slice(b"\r\nx-request-start: ");
        self.write_start(into);
        into.extend_from_slice(b"\r\nx-request-id: ");
        into.extend_from_slice(self.request_id);
        into.extend_from_slice(b"\r\n");
    }

    pub(super) fn write_peer(&self, into: &mut Vec<u8>) {
        address(into, self.peer);
    }

    pub(super) fn write_forwarded(&self, into: &mut Vec<u8>) {
        self.write_forwarded_for(into, |into| self.write_peer(into));
    }

    /// `peer` writes the address. RFC 7239, 4: a node that is no IPv4 address is quoted.
    fn write_forwarded_for(&self, into: &mut Vec<u8>, peer: impl FnOnce(&mut Vec<u8>)) {
        let (open, close) = if self.peer.is_ipv6() { (&b"for=\"["[..], &b"]\""[..]) } else { (&b"for="[..], &b""[..]) };
        into.extend_from_slice(open);
        peer(into);
        into.extend_from_slice(close);
        into.extend_from_slice(b";host=\"");
        match memchr::memchr2(b'"', b'\\', self.authority.as_bytes()) {
            None => into.extend_from_slice(self.authority.as_bytes()),
            Some(_) => into.extend(self.authority.bytes().filter(|it| !matches!(it, b'"' | b'\\'))),
        }
        into.extend_from_slice(b"\";proto=");
        into.extend_from_slice(self.scheme.as_str().as_bytes());
    }

    pub(super) fn write_port(&self, into: &mut Vec<u8>) {
        let colon = self.authority.bytes().rposition(|it| it == b':');
        let port = colon.and_then(|it| self.authority[it + 1..].parse::<u16>().ok());
        let port = port.unwrap_or(if self.scheme == Scheme::Https { 443 } else { 80 });
        decimal(into, port.into());
    }

    pub(super) fn write_start(&self, into: &mut Vec<u8>) {
        let millis = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        into.extend_from_slice(b"t=");
        decimal(into, millis);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_is_the_same_in_either_field() {
        let check = |peer: &str, node: &str| {
            let stamp = Stamp {
                peer: peer.parse().expect("an address"),
                scheme: Scheme::Https,
                authority: "shop.example",
                started_at: UNIX_EPOCH + Duration::from_millis(5),
                request_id: b"id",
            };
            let mut whole = b"before\r\n".to_vec();
            stamp.write(&mut whole);
            let mut forwarded = Vec::new();
            stamp.write_forwarded(&mut forwarded);
            let forwarded = String::from_utf8(forwarded).expect("ASCII");
            assert_eq!(forwarded, format!("for={node};host=\"shop.example\";proto=https"));
            let lines = format!("x-forwarded-for: {peer}\r\nforwarded: {forwarded}\r\nx-forwarded-proto: https\r\n");
            assert!(String::from_utf8(whole).expect("ASCII").contains(&lines), "{peer}");
        };
        check("192.0.2.7", "192.0.2.7");
        check("2001:db8::1", "\"[2001:db8::1]\"");
    }
}
