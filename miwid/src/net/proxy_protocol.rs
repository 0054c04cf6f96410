//! The PROXY protocol, versions 1 and 2: what a load balancer says of a connection before its first byte. A header
//! is believed because of who sends it, never because it is well-formed: whoever reads one has checked the peer first.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Version 2 begins with these; no HTTP or TLS client ever does.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const WORD: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, with its line end.
const LINE_MAX: usize = 107;
/// The shortest, `PROXY UNKNOWN`. Version 2 is longer still.
const SHORTEST: usize = 15;
/// Signature, version and command, family, length.
const FIXED: usize = 16;
/// Addresses take up to 216 bytes; the rest is room for what a balancer adds (TLVs), which is skipped.
const REST_MAX: usize = 2048;

/// What a header says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The balancer speaks for itself (a health check), or does not know: the TCP peer stands.
    Local,
    Proxied {
        source: SocketAddr,
        destination: SocketAddr,
    },
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    NotProxy,
    TooLong,
    Version,
    Command,
    Address,
}

/// Which form to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    V1,
    V2,
}

/// The header and its length, or `None` while bytes are missing. Bytes behind the header are not looked at.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let begins = |mark: &[u8]| bytes.iter().zip(mark).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        if bytes.len() < FIXED { Ok(None) } else { version2(bytes) }
    } else if begins(WORD) {
        version1(bytes)
    } else {
        Err(Malformed::NotProxy)
    }
}

/// How many bytes may be read on after `parse` said `None`, without taking any that come behind the header.
pub fn missing(bytes: &[u8]) -> usize {
    if bytes.len() < SHORTEST {
        SHORTEST - bytes.len()
    } else if bytes.starts_with(SIGNATURE) {
        let rest = if bytes.len() < FIXED { 0 } else { length(bytes) };
        (FIXED + rest).saturating_sub(bytes.len()).max(1)
    } else if bytes.ends_with(b"\r") {
        1
    } else {
        2
    }
}

/// Reads a header and nothing behind it. The caller sets the deadline.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Header> {
    let mut bytes = Vec::with_capacity(LINE_MAX);
    loop {
        match parse(&bytes).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, format!("{why:?}")))? {
            Some((header, _)) => return Ok(header),
            None => {
                let more = missing(&bytes) as u64;
                if (&mut *stream).take(more).read_buf(&mut bytes).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

// === Version 1 ===

fn version1(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let window = &bytes[..bytes.len().min(LINE_MAX)];
    let Some(end) = memchr::memmem::find(window, b"\r\n") else {
        return if bytes.len() < LINE_MAX { Ok(None) } else { Err(Malformed::TooLong) };
    };
    let line = std::str::from_utf8(&window[WORD.len().min(end)..end]).map_err(|_| Malformed::Address)?;
    let used = end + 2;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Some((Header::Local, used)));
    }
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(Malformed::Address);
    let family = word()?;
    let (from, to, from_port, to_port) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(Malformed::Address);
    }
    let header = Header::Proxied {
        source: SocketAddr::new(ip(family, from)?, port(from_port)?),
        destination: SocketAddr::new(ip(family, to)?, port(to_port)?),
    };
    Ok(Some((header, used)))
}

fn ip(family: &str, text: &str) -> Result<IpAddr, Malformed> {
    let address = match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6),
        _ => return Err(Malformed::Command),
    };
    address.map_err(|_| Malformed::Address)
}

fn port(text: &str) -> Result<u16, Malformed> {
    // A sign or a leading zero is nothing that a balancer writes.
    let plain = text == "0" || text.starts_with(|it: char| matches!(it, '1'..='9'));
    text.parse().ok().filter(|_| plain).ok_or(Malformed::Address)
}

// === Version 2 ===

fn length(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[14], bytes[15]]))
}

/// `bytes` has its fixed part.
fn version2(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    if bytes[12] >> 4 != 2 {
        return Err(Malformed::Version);
    }
    let (command, family, rest) = (bytes[12] & 0xf, bytes[13], length(bytes));
    if command > 1 {
        return Err(Malformed::Command);
    }
    if rest > REST_MAX {
        return Err(Malformed::TooLong);
    }
    let used = FIXED + rest;
    let Some(body) = bytes.get(FIXED..used) else { return Ok(None) };
    if command == 0 {
        return Ok(Some((Header::Local, used)));
    }
    let header = match family {
        0x11 => proxied::<4>(body)?,
        0x21 => proxied::<16>(body)?,
        // Unspecified, datagrams, unix sockets: nothing that could be an HTTP client's address.
        _ => Header::Local,
    };
    Ok(Some((header, used)))
}

fn proxied<const N: usize>(body: &[u8]) -> Result<Header, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let address = |at: usize| body.get(at..at + N).and_then(|it| <[u8; N]>::try_from(it).ok()).map(IpAddr::from);
    let port = |at: usize| body.get(at..at + 2).map(|it| u16::from_be_bytes([it[0], it[1]]));
    let read = || {
        Some(Header::Proxied {
            source: SocketAddr::new(address(0)?, port(2 * N)?),
            destination: SocketAddr::new(address(N)?, port(2 * N + 2)?),
        })
    };
    read().ok_or(Malformed::Address)
}

// === Writing ===

/// The header as bytes.
pub fn encode(form: Form, header: Header) -> Vec<u8> {
    let ends = match header {
        Header::Local => None,
        Header::Proxied { source, destination } => Some(alike(source, destination)),
    };
    match form {
        Form::V1 => match ends {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some((from, to)) => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
            }
        },
        Form::V2 => encode2(ends),
    }
}

fn encode2(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    let Some((from, to)) = ends else {
        bytes.extend([0x20, 0, 0, 0]);
        return bytes;
    };
    bytes.extend(if from.is_ipv4() { [0x21, 0x11, 0, 12] } else { [0x21, 0x21, 0, 36] });
    for end in [from, to] {
        match end.ip() {
            IpAddr::V4(it) => bytes.extend(it.octets()),
            IpAddr::V6(it) => bytes.extend(it.octets()),
        }
    }
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    bytes
}

/// Both ends in one family: a header has room for one only.
fn alike(from: SocketAddr, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let wide = |it: SocketAddr| match it.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), it.port()),
        IpAddr::V6(_) => it,
    };
    let (from, to) = (plain(from), plain(to));
    if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (wide(from), wide(to)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn proxied(source: &str, destination: &str) -> Header {
        Header::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        [SIGNATURE, &[command, family][..], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    #[test]
    fn lines_of_version_1() {
        let check = |line: &str, expected: Result<Option<Header>, Malformed>| {
            let verdict = parse(line.as_bytes()).map(|it| it.map(|(header, _)| header));
            assert_eq!(verdict, expected, "{line:?}");
        };
        let v4 = proxied("192.0.2.1:56324", "192.0.2.2:443");
        check("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET /", Ok(Some(v4)));
        check("PROXY TCP6 2001:db8::1 ::1 1 0\r\n", Ok(Some(proxied("[2001:db8::1]:1", "[::1]:0"))));
        check("PROXY UNKNOWN\r\n", Ok(Some(Header::Local)));
        check("PROXY UNKNOWN ff:: ff:: 1 2\r\n", Ok(Some(Header::Local)));
        check("", Ok(None));
        check("PRO", Ok(None));
        check("PROXY TCP4 192.0.2.1", Ok(None));
        check("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r", Ok(None));
        check("GET / HTTP/1.1\r\n", Err(Malformed::NotProxy));
        check("PROXYTCP4", Err(Malformed::NotProxy));
        for wrong in [
            "TCP4 192.0.2.1 192.0.2.2 56324",
            "TCP4 192.0.2.1 192.0.2.2 56324 443 1",
            "TCP4 192.0.2.1 192.0.2.2 65536 443",
            "TCP4 192.0.2.1 192.0.2.2 +1 443",
            "TCP4 192.0.2.1 192.0.2.2 01 443",
            "TCP4 ::1 ::1 1 2",
            "TCP6 192.0.2.1 192.0.2.2 1 2",
            "TCP4  192.0.2.1 192.0.2.2 1 2",
            "",
        ] {
            check(&format!("PROXY {wrong}\r\n"), Err(Malformed::Address));
        }
        check("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", Err(Malformed::Command));
        check(&format!("PROXY {}", "x".repeat(120)), Err(Malformed::TooLong));
    }

    #[test]
    fn frames_of_version_2() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 187];
        let header = proxied("192.0.2.1:80", "192.0.2.2:443");
        assert_eq!(parse(&v2(0x21, 0x11, &v4)), Ok(Some((header, 28))));
        let tlvs = [&v4[..], &[4, 0, 1, 9]].concat();
        assert_eq!(parse(&[v2(0x21, 0x11, &tlvs), b"GET".to_vec()].concat()), Ok(Some((header, 32))));
        assert_eq!(parse(&v2(0x20, 0x11, &v4)), Ok(Some((Header::Local, 28))));
        assert_eq!(parse(&v2(0x21, 0, &[])), Ok(Some((Header::Local, 16))));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), Ok(Some((Header::Local, 232))));
        assert_eq!(parse(&v2(0x21, 0x11, &v4[..11])), Err(Malformed::Address));
        assert_eq!(parse(&v2(0x11, 0x11, &v4)), Err(Malformed::Version));
        assert_eq!(parse(&v2(0x22, 0x11, &v4)), Err(Malformed::Command));
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 2049])), Err(Malformed::TooLong));
    }

    #[test]
    fn ends_of_two_families_are_written_as_one() {
        let mixed = Header::Proxied {
            source: "[2001:db8::1]:5".parse().unwrap(),
            destination: "127.0.0.1:80".parse().unwrap(),
        };
        for form in [Form::V1, Form::V2] {
            let (header, _) = parse(&encode(form, mixed)).unwrap().unwrap();
            assert_eq!(header, proxied("[2001:db8::1]:5", "[::ffff:127.0.0.1]:80"));
        }
    }

    /// Reads as the server does: never more than is missing.
    fn read_on(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
        let mut taken = 0;
        loop {
            match parse(&bytes[..taken])? {
                Some(found) => {
                    assert_eq!(found.1, taken, "not a byte behind the header was taken");
                    return Ok(Some(found));
                }
                None if taken == bytes.len() => return Ok(None),
                None => taken = bytes.len().min(taken + missing(&bytes[..taken])),
            }
        }
    }

    fn begun() -> impl Strategy<Value = Vec<u8>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            bytes(),
            bytes().prop_map(|it| [&WORD[..], &it].concat()),
            "PROXY (TCP4|TCP6|UNKNOWN|X) [0-9a-f.: ]{0,40}\r\n[a-z]{0,5}".prop_map(String::into_bytes),
            (any::<u8>(), any::<u8>(), bytes()).prop_map(|(command, family, it)| v2(command, family, &it)),
            bytes().prop_map(|it| [&SIGNATURE[..], &it].concat()),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_there_is_a_verdict_and_the_same_for_any_split(bytes in begun(), cut in 0_usize..400) {
            let whole = parse(&bytes);
            prop_assert_eq!(read_on(&bytes), whole);
            // A part is judged as the whole, or not yet.
            if let Ok(Some(found)) = parse(&bytes[..bytes.len().min(cut)]) {
                prop_assert_eq!(whole, Ok(Some(found)));
            }
        }

        #[test]
        fn what_is_written_is_read(from: [u8; 4], to: [u8; 4], wide: [u8; 16], ports: (u16, u16), form: bool) {
            let form = if form { Form::V1 } else { Form::V2 };
            // Mapped addresses are written as what they are.
            let wide = IpAddr::from(wide).to_canonical();
            for (from, to) in [(IpAddr::from(from), IpAddr::from(to)), (wide, wide)] {
                let header = Header::Proxied {
                    source: SocketAddr::new(from, ports.0),
                    destination: SocketAddr::new(to, ports.1),
                };
                let bytes = encode(form, header);
                prop_assert_eq!(parse(&bytes), Ok(Some((header, bytes.len()))));
            }
            let local = encode(form, Header::Local);
            prop_assert_eq!(parse(&local), Ok(Some((Header::Local, local.len()))));
        }
    }
}
