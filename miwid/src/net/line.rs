//! Header lines that are written as they are sent.

/// `name: value`, the name in small letters.
pub fn put_line(into: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let at = into.len();
    into.extend_from_slice(name);
    lower(&mut into[at..]);
    for part in [b": ", value, b"\r\n"] {
        into.extend_from_slice(part);
    }
}

/// Names are short: eight bytes at a time are most of what there is.
fn lower(name: &mut [u8]) {
    let (eights, rest) = name.as_chunks_mut::<8>();
    for eight in eights {
        *eight = lower_eight(u64::from_ne_bytes(*eight)).to_ne_bytes();
    }
    rest.make_ascii_lowercase();
}

/// The bytes of a token are below 0x80, so that no sum below carries into the next.
fn lower_eight(bytes: u64) -> u64 {
    const EACH: u64 = u64::MAX / 0xff;
    let from_a = bytes + EACH * (0x80 - b'A') as u64;
    let above_z = bytes + EACH * (0x7f - b'Z') as u64;
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
    fn a_line_is_written_behind_what_is_there() {
        let mut into = b"X: Y\r\n".to_vec();
        put_line(&mut into, b"X-Forwarded-For", b"A");
        assert_eq!(into, b"X: Y\r\nx-forwarded-for: A\r\n");
    }
}
