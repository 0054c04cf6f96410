//! Header fields that are written as they will be sent. Each forwarded request gets about nine of its own; a map of them
//! would be made only to be taken apart again.

use std::{io::Write, net::IpAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use crate::net;

/// More than the fields of most requests take.
const USUAL_BYTES: usize = 512;

#[derive(Debug)]
pub(super) struct Fields(Vec<u8>);

impl Default for Fields {
    fn default() -> Self {
        Self(Vec::with_capacity(USUAL_BYTES))
    }
}

impl Fields {
    /// A value that could end its line is left out, and its field with it.
    pub(super) fn put(&mut self, name: &HeaderName, value: &[u8]) {
        self.write(name, |into| into.extend_from_slice(value));
    }

    pub(super) fn write(&mut self, name: &HeaderName, value: impl FnOnce(&mut Vec<u8>)) {
        let begun = self.0.len();
        self.0.extend_from_slice(name.as_str().as_bytes());
        self.0.extend_from_slice(b": ");
        let at = self.0.len();
        value(&mut self.0);
        if net::is_field_value(&self.0[at..]) {
            self.0.extend_from_slice(b"\r\n");
        } else {
            self.0.truncate(begun);
        }
    }

    /// Whole lines.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For a protocol that writes fields in its own way.
    pub(super) fn to_map(&self) -> HeaderMap {
        net::fields(&Bytes::copy_from_slice(&self.0)).unwrap_or_default()
    }
}

pub(super) fn decimal(into: &mut Vec<u8>, number: u64) {
    into.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(super) fn address(into: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    into.push(b'.');
                }
                decimal(into, octet.into());
            }
        }
        // Writing to memory does not fail.
        IpAddr::V6(address) => _ = write!(into, "{address}"),
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn lines_are_read_back_as_they_were_meant() {
        let mut fields = Fields::default();
        fields.put(&header::VIA, b"1.1 miwid");
        fields.put(&header::HOST, b"a\r\nevil: 1");
        fields.put(&header::TE, b"tab\there");
        assert_eq!(fields.as_bytes(), b"via: 1.1 miwid\r\nte: tab\there\r\n");
        let map = fields.to_map();
        assert_eq!((map.len(), map["via"].as_bytes(), map["te"].as_bytes()), (2, &b"1.1 miwid"[..], &b"tab\there"[..]));
    }

    #[test]
    fn numbers_and_addresses_are_written_like_the_library_does() {
        for number in [0, 7, 10, 255, 65_535, 1_700_000_000_123, u64::MAX] {
            let mut text = Vec::new();
            decimal(&mut text, number);
            assert_eq!(String::from_utf8_lossy(&text), number.to_string());
        }
        for ip in ["0.0.0.0", "127.0.0.1", "255.10.1.99", "::1", "2001:db8::1"] {
            let mut text = Vec::new();
            address(&mut text, ip.parse().expect("an address"));
            assert_eq!(String::from_utf8_lossy(&text), ip);
        }
    }
}
