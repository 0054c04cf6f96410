//! The PROXY protocol's two headers: a verdict that does not depend on how the bytes arrive, never a byte of what comes
//! behind, and what we write ourselves is read as it was meant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use miwid::net::proxy_protocol::{Form, Header, encode, missing, parse};

/// The longest header that is waited for.
const HEADER_BYTES_MAX: usize = 16 + 2048;

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    let longer = [data, b"GET / HTTP/1.1\r\n\r\n"].concat();
    match whole {
        Ok(Some((header, used))) => {
            assert!((1..=data.len()).contains(&used) && used <= HEADER_BYTES_MAX, "{used} of {}", data.len());
            assert!(data.starts_with(b"PROXY ") || data.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
            assert_eq!(parse(&longer), whole);
            for cut in 0..used {
                assert_eq!(parse(&data[..cut]), Ok(None), "a verdict on {cut} bytes of {used}");
            }
            is_written_as_it_is_read(header);
        }
        Ok(None) => {
            assert!(data.len() < HEADER_BYTES_MAX, "waits for ever");
            assert!(missing(data) > 0);
        }
        Err(_) => assert!(parse(&longer).is_err(), "more bytes mended it"),
    }
    assert_eq!(read(data), whole);
});

/// As the server does: no more at a time than is missing.
fn read(data: &[u8]) -> Result<Option<(Header, usize)>, miwid::net::proxy_protocol::Malformed> {
    let mut taken = 0;
    loop {
        match parse(&data[..taken])? {
            Some((header, used)) => {
                assert_eq!(used, taken, "a byte behind the header was taken");
                return Ok(Some((header, used)));
            }
            None if taken == data.len() => return Ok(None),
            None => taken = data.len().min(taken + missing(&data[..taken])),
        }
    }
}

fn is_written_as_it_is_read(header: Header) {
    for form in [Form::V1, Form::V2] {
        let bytes = encode(form, header);
        let Ok(Some((again, used))) = parse(&bytes) else { panic!("{header:?} cannot be read") };
        assert_eq!(used, bytes.len());
        assert_eq!(encode(form, again), bytes);
        match (header, again) {
            (Header::Local, Header::Local) => {}
            (Header::Proxied { source, destination }, Header::Proxied { source: from, destination: to }) => {
                for (end, other) in [(source, from), (destination, to)] {
                    assert_eq!((end.ip().to_canonical(), end.port()), (other.ip().to_canonical(), other.port()));
                }
            }
            _ => panic!("{header:?} became {again:?}"),
        }
    }
}
