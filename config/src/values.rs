//! Values that are more than TOML knows: durations, sizes, addresses, signals. Text in, typed value or complaint out.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use crate::{ByteSize, UpstreamUrl};

/// A century: longer would overflow clocks and is a mistake anyway.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// `30` (seconds), `200ms`, `30s`, `5m`, `1h`, `7d`, `1h30m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.bytes().all(|it| it.is_ascii_digit()) {
        return seconds(text.parse().ok()?);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let millis: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = rest[letters..].trim_start();
    }
    Some(total).filter(|it| *it <= LONGEST)
}

pub(crate) fn seconds(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().map(Duration::from_secs).filter(|it| *it <= LONGEST)
}

/// `10MB`, `64 KiB`, `1.5GB`, `4096`; every unit is a power of 1024.
pub(crate) fn size(text: &str) -> Option<ByteSize> {
    let text = text.trim();
    let digits = text.bytes().take_while(|it| it.is_ascii_digit() || *it == b'.').count();
    let shift = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    if let Ok(whole) = text[..digits].parse::<u64>() {
        return whole.checked_mul(1 << shift).map(ByteSize);
    }
    mebi(text[..digits].parse::<f64>().ok()?, shift)
}

/// `number` times two to the power of `shift`, as bytes.
pub(crate) fn mebi(number: f64, shift: u32) -> Option<ByteSize> {
    let bytes = number * f64::from(shift).exp2();
    // Above 2^53 a float no longer counts single bytes; no file is that big.
    (bytes.is_finite() && (0.0..=9e15).contains(&bytes)).then_some(ByteSize(bytes as u64))
}

/// With or without brackets.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok(),
    }
}

pub(crate) fn socket(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

/// A range, or one address.
pub(crate) fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| address(text).map(IpNet::from))
}

pub(crate) fn upstream(text: &str) -> Result<UpstreamUrl, (&'static str, &'static str)> {
    const FORMS: &str = "write `http://host:port`, `https://host:port` or `unix:/path`";
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path.starts_with('/') {
            true => Ok(UpstreamUrl::Unix { path: path.into() }),
            false => Err(("the path of a Unix socket has to be absolute", "write `unix:/run/app.sock`")),
        };
    }
    let (secure, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err(("the address of an upstream begins with `http://`, `https://` or `unix:`", FORMS)),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err((
            "the address of an upstream has no path",
            "requests keep their own path; `strip_prefix` in a route shortens it",
        ));
    }
    let (host, port) =
        authority(rest, if secure { 443 } else { 80 }).ok_or(("this is not a host and a port", FORMS))?;
    Ok(if secure { UpstreamUrl::Https { host, port } } else { UpstreamUrl::Http { host, port } })
}

/// Host (IPv6 without brackets) and port.
fn authority(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[').and_then(|it| it.split_once(']')) {
        Some((host, port)) => {
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (&text[..end], &text[end..])
        }
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|it| *it > 0)?,
        None if port.is_empty() => default_port,
        None => return None,
    };
    let fine = !host.is_empty() && host.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.:".contains(&it));
    fine.then(|| (host.to_ascii_lowercase(), port))
}

/// An exact host, `*.example.com` or `_`, lower-cased.
pub(crate) fn host(text: &str) -> Result<String, (&'static str, &'static str)> {
    const FORMS: &str = "write `shop.example.com`, `*.example.com`, or `_` for every other host";
    if text == "_" {
        return Ok(text.to_owned());
    }
    if text.contains("://") || text.contains('/') {
        return Err(("a host name has no scheme and no path", FORMS));
    }
    if !text.is_ascii() {
        return Err(("a host name is written in ASCII", "write its `xn--` form"));
    }
    if address(text).is_some() {
        return Ok(text.to_ascii_lowercase());
    }
    if text.contains(':') {
        return Err(("a host name has no port", FORMS));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let fine = labels.len() <= 253
        && labels.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
        });
    if fine { Ok(name.to_ascii_lowercase()) } else { Err(("this is not a host name", FORMS)) }
}

const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// `SIGTERM`, `TERM` or `15`, as Linux numbers them.
pub(crate) fn signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    (1..).zip(SIGNALS).find(|(_, it)| *it == name).map(|(number, _)| number)
}

/// A header value: printable, no line ends.
pub(crate) fn header_value(text: &str) -> bool {
    text.chars().all(|it| it == '\t' || !it.is_control())
}

/// A header name: a token.
pub(crate) fn header_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it))
}
