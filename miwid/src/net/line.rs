//! Header lines that are read and written as they are sent.

/// `name: value`, the name in small letters.
pub fn put_line(into: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let at = into.len();
    into.extend_from_slice(name);
    lower(&mut into[at..]);
    for part in [b": ", value, b"\r\n"] {
        into.extend_from_slice(part);
    }
}

/// Whether it is the field of that name, which is known in small letters. Names of four to sixteen bytes, and these are most,
/// are held against it in two parts, which overlap where there are fewer than sixteen.
#[inline]
pub fn is_named(name: &str, known: &'static str) -> bool {
    let (name, known) = (name.as_bytes(), known.as_bytes());
    if name.len() != known.len() {
        return false;
    }
    match name.len() {
        4..8 => halves(name).map(lower_eight) == halves(known),
        8..=16 => ends(name).map(|it| it.map(lower_eight)) == ends(known),
        _ => name.eq_ignore_ascii_case(known),
    }
}

/// The first four bytes and the last, as one number.
#[inline]
fn halves(name: &[u8]) -> Option<u64> {
    let (first, last) = (name.first_chunk()?, name.last_chunk()?);
    Some(u64::from(u32::from_ne_bytes(*first)) << 32 | u64::from(u32::from_ne_bytes(*last)))
}

/// The first eight bytes and the last.
#[inline]
fn ends(name: &[u8]) -> Option<[u64; 2]> {
    Some([u64::from_ne_bytes(*name.first_chunk()?), u64::from_ne_bytes(*name.last_chunk()?)])
}

/// Names are short: eight bytes at a time, and the last eight once more where they are no whole ones.
fn lower(name: &mut [u8]) {
    for eight in name.as_chunks_mut::<8>().0 {
        *eight = lower_eight(u64::from_ne_bytes(*eight)).to_ne_bytes();
    }
    match name.last_chunk_mut::<8>() {
        Some(eight) => *eight = lower_eight(u64::from_ne_bytes(*eight)).to_ne_bytes(),
        None => name.make_ascii_lowercase(),
    }
}

/// Without the highest bit of each no sum below carries into the next byte. One that has it keeps it, and is like nothing that
/// is known.
#[inline]
fn lower_eight(bytes: u64) -> u64 {
    const EACH: u64 = u64::MAX / 0xff;
    let low = bytes & (EACH * 0x7f);
    let from_a = low + EACH * (0x80 - b'A') as u64;
    let above_z = low + EACH * (0x7f - b'Z') as u64;
    // 0x80 where it is a capital; a quarter of it is what small letters have more.
    bytes | ((from_a ^ above_z) & (EACH * 0x80)) >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_token_is_lowered_wherever_it_stands() {
        for byte in 0..0x80_u8 {
            for length in 1..20 {
                for at in 0..length {
                    let mut name = vec![b'-'; length];
                    name[at] = byte;
                    let expected = name.to_ascii_lowercase();
                    lower(&mut name);
                    assert_eq!(name, expected);
                }
            }
        }
    }

    #[test]
    fn a_name_is_known_in_whatever_letters_it_is_written() {
        for known in [
            "te",
            "via",
            "host",
            "server",
            "upgrade",
            "if-range",
            "connection",
            "content-length",
            "proxy-connection",
            "transfer-encoding",
            "if-unmodified-since",
        ] {
            assert!(is_named(known, known) && is_named(&known.to_ascii_uppercase(), known), "{known}");
            assert!(!is_named(&known[1..], known) && !is_named(&format!("{known}s"), known), "{known}");
            for at in 0..known.len() {
                for byte in 0..0x80_u8 {
                    let mut name = known.as_bytes().to_vec();
                    name[at] = byte;
                    let name = String::from_utf8(name).expect("ASCII");
                    assert_eq!(is_named(&name, known), name.eq_ignore_ascii_case(known), "{name:?} {known}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_token_is_no_known_name() {
        for known in ["server", "connection"] {
            for at in 0..known.len() - 1 {
                for stranger in ['\u{80}', '\u{a1}', '\u{d3}', '\u{7bf}'] {
                    for next in 0..0x80_u8 {
                        let rest = known.get(at + 3..).unwrap_or_default();
                        let name = format!("{}{stranger}{}{rest}", &known[..at], char::from(next));
                        assert!(!is_named(&name, known), "{name:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_line_is_written_behind_what_is_there() {
        let mut into = b"X: Y\r\n".to_vec();
        put_line(&mut into, b"X-Forwarded-For", b"A");
        assert_eq!(into, b"X: Y\r\nx-forwarded-for: A\r\n");
    }
}
