//! What miwid says of the client to whoever is asked next.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use http::header;

use super::fields::{Fields, address, decimal};
use crate::exchange::{
    Context, Scheme,
    headers::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REQUEST_ID, X_REQUEST_START},
};

#[derive(Clone, Copy)]
pub struct Stamp<'a> {
    /// Who spoke to us.
    pub peer: IpAddr,
    /// As the client sees it.
    pub scheme: Scheme,
    /// As in its Host header.
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
    pub(super) fn write(&self, into: &mut Fields) {
        into.put(&header::VIA, b"1.1 miwid");
        into.write(&X_FORWARDED_FOR, |it| self.write_peer(it));
        into.write(&header::FORWARDED, |it| self.write_forwarded(it));
        into.put(&X_FORWARDED_PROTO, self.scheme.as_str().as_bytes());
        into.put(&X_FORWARDED_HOST, self.authority.as_bytes());
        into.write(&X_FORWARDED_PORT, |it| self.write_port(it));
        into.write(&X_REQUEST_START, |it| self.write_start(it));
        into.put(&X_REQUEST_ID, self.request_id);
    }

    pub(super) fn write_peer(&self, into: &mut Vec<u8>) {
        address(into, self.peer);
    }

    /// RFC 7239, 4: a node that is no IPv4 address is quoted.
    pub(super) fn write_forwarded(&self, into: &mut Vec<u8>) {
        let (open, close) = if self.peer.is_ipv6() { (&b"for=\"["[..], &b"]\""[..]) } else { (&b"for="[..], &b""[..]) };
        into.extend_from_slice(open);
        address(into, self.peer);
        into.extend_from_slice(close);
        into.extend_from_slice(b";host=\"");
        into.extend(self.authority.bytes().filter(|it| !matches!(it, b'"' | b'\\')));
        into.extend_from_slice(b"\";proto=");
        into.extend_from_slice(self.scheme.as_str().as_bytes());
    }

    pub(super) fn write_port(&self, into: &mut Vec<u8>) {
        let port = self.authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let port = port.unwrap_or(if self.scheme == Scheme::Https { 443 } else { 80 });
        decimal(into, port.into());
    }

    pub(super) fn write_start(&self, into: &mut Vec<u8>) {
        let millis = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        into.extend_from_slice(b"t=");
        decimal(into, millis);
    }
}
