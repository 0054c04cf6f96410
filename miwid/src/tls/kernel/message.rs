//! What is no data on a TLS 1.3 connection after its handshake, in either direction.

use std::mem::size_of;

use nix::libc;

pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
/// Level warning, `close_notify` (RFC 8446, 6.1).
pub(super) const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// A `KeyUpdate` that asks for none in return (RFC 8446, 4.6.3).
pub(super) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const USER_CANCELED: u8 = 90;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Not whole yet, or nothing that matters.
    Nothing,
    Farewell,
    /// The peer's next records have other keys.
    NewKeys {
        /// It wants ours to be other ones, too.
        asked: bool,
    },
}

/// Messages put together: a record may end anywhere in one.
#[derive(Default)]
pub(super) struct Ear {
    kind: u8,
    begun: Vec<u8>,
}

impl Ear {
    /// Hears what came in a record of that kind. An error says what the peer must not do.
    pub(super) fn hear(&mut self, kind: u8, bytes: &[u8]) -> Result<Heard, String> {
        if !self.begun.is_empty() && self.kind != kind {
            return Err("a message is interrupted by another".to_owned());
        }
        self.kind = kind;
        self.begun.extend_from_slice(bytes);
        let heard = match (kind, self.begun.as_slice()) {
            (ALERT, [] | [_]) => return Ok(Heard::Nothing),
            (ALERT, [_, 0]) => Heard::Farewell,
            (ALERT, [_, USER_CANCELED]) => Heard::Nothing,
            (ALERT, [_, alert]) => return Err(format!("the peer says alert {alert}")),
            (HANDSHAKE, [24, 0, 0, 1, asked @ (0 | 1)]) => Heard::NewKeys { asked: *asked == 1 },
            (HANDSHAKE, begun) if begun.len() < KEY_UPDATE.len() && KEY_UPDATE.starts_with(begun) => {
                return Ok(Heard::Nothing);
            }
            (HANDSHAKE, _) => return Err("a handshake message after the handshake".to_owned()),
            _ => return Err(format!("a record of kind {kind}")),
        };
        self.begun = Vec::new();
        Ok(heard)
    }
}

/// What tells the kernel that a message goes out in a record of that kind: a `cmsghdr` and one byte, as the kernel aligns
/// them (cmsg(3)).
pub(super) fn record_kind(kind: u8) -> Vec<u8> {
    const WORD: usize = size_of::<usize>();
    let header = WORD + 2 * size_of::<libc::c_int>();
    let mut bytes = Vec::with_capacity(header + WORD);
    bytes.extend_from_slice(&(header + 1).to_ne_bytes());
    bytes.extend_from_slice(&libc::SOL_TLS.to_ne_bytes());
    bytes.extend_from_slice(&libc::TLS_SET_RECORD_TYPE.to_ne_bytes());
    bytes.push(kind);
    bytes.resize(header + WORD, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_data_is_understood_whole_and_in_pieces() {
        let check = |kind: u8, bytes: &[u8], expected: Result<Heard, &str>| {
            for at in 0..=bytes.len() {
                let mut ear = Ear::default();
                let (first, second) = bytes.split_at(at);
                let heard = match ear.hear(kind, first) {
                    Ok(Heard::Nothing) if !second.is_empty() => ear.hear(kind, second),
                    heard => heard,
                };
                match (heard, &expected) {
                    (Ok(heard), Ok(expected)) => assert_eq!(&heard, expected, "{bytes:?} at {at}"),
                    (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                    (heard, _) => panic!("{bytes:?} at {at}: {heard:?}"),
                }
            }
        };
        check(ALERT, &CLOSE_NOTIFY, Ok(Heard::Farewell));
        check(ALERT, &[2, 0], Ok(Heard::Farewell));
        check(ALERT, &[1, 90], Ok(Heard::Nothing));
        check(ALERT, &[2, 20], Err("alert 20"));
        check(HANDSHAKE, &KEY_UPDATE, Ok(Heard::NewKeys { asked: false }));
        check(HANDSHAKE, &[24, 0, 0, 1, 1], Ok(Heard::NewKeys { asked: true }));
        check(HANDSHAKE, &[24, 0, 0, 1, 2], Err("handshake message"));
        check(HANDSHAKE, &[11, 0, 0, 1, 1], Err("handshake message"));
        check(20, &[1], Err("kind 20"));
    }

    #[test]
    fn a_message_is_not_interrupted_and_each_is_heard_by_itself() {
        let mut ear = Ear::default();
        assert_eq!(ear.hear(HANDSHAKE, &KEY_UPDATE[..3]), Ok(Heard::Nothing));
        assert!(ear.hear(ALERT, &CLOSE_NOTIFY).is_err());
        let mut ear = Ear::default();
        for asked in [1, 0, 1] {
            assert_eq!(ear.hear(HANDSHAKE, &[24, 0, 0, 1, asked]), Ok(Heard::NewKeys { asked: asked == 1 }));
        }
        assert!(ear.hear(HANDSHAKE, &[KEY_UPDATE, KEY_UPDATE].concat()).is_err(), "the second has old keys");
    }

    /// `cmsg_space` is what the kernel's own macros give.
    #[test]
    fn a_control_message_is_laid_out_as_the_kernel_reads_it() {
        let bytes = record_kind(ALERT);
        assert_eq!(bytes.len(), nix::sys::socket::cmsg_space::<u8>());
        let word = size_of::<usize>();
        assert_eq!(bytes[..word], (word + 9).to_ne_bytes());
        assert_eq!(bytes[word..word + 4], 282_i32.to_ne_bytes());
        assert_eq!(bytes[word + 4..word + 9], [&1_i32.to_ne_bytes()[..], &[ALERT]].concat()[..]);
    }
}
