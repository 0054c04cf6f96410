//! A chunked body (RFC 9112, 7.1), to the letter: hexadecimal digits, perhaps an extension of bounded length, CR LF. Pure.

use super::Flaw;

/// 16 digits fill 64 bits; one that sends more counts on somebody's overflow.
const DIGITS_MAX: u8 = 16;
/// Bytes of all chunk extensions of one body. Nobody uses them but to make others work.
const EXTENSIONS_MAX: u16 = 4096;

#[derive(Clone, Debug)]
pub(super) struct Chunks {
    at: At,
    extensions: u16,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Size { size: u64, digits: u8 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    /// The last chunk's size line has ended; trailers follow.
    Last,
}

/// What some bytes begin with: framing, then data of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub framing: usize,
    pub data: usize,
    pub progress: Progress,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self { at: At::Size { size: 0, digits: 0 }, extensions: 0 }
    }

    /// How many of `bytes` are fine, and what came after them.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> (usize, Result<Progress, Flaw>) {
        let mut at = 0;
        while at < bytes.len() {
            if let At::Data { left } = &mut self.at {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                *left -= taken as u64;
                at += taken;
                if *left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            let ended = matches!(self.at, At::SizeEnd { size: 0 });
            match self.step(bytes[at]) {
                Ok(next) => self.at = next,
                Err(flaw) => return (at, Err(flaw)),
            }
            at += 1;
            if ended {
                return (at, Ok(Progress::Last));
            }
        }
        (at, Ok(Progress::More))
    }

    /// The same for whoever wants the data without its framing: as far as the end of the next data.
    pub(super) fn piece(&mut self, bytes: &[u8]) -> Result<Piece, Flaw> {
        let mut framing = 0;
        while framing < bytes.len() {
            if let At::Data { left } = self.at {
                let data = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - framing);
                let (_, progress) = self.advance(&bytes[framing..framing + data]);
                return Ok(Piece { framing, data, progress: progress? });
            }
            let (taken, progress) = self.advance(&bytes[framing..=framing]);
            framing += taken;
            if progress? == Progress::Last {
                return Ok(Piece { framing, data: 0, progress: Progress::Last });
            }
        }
        Ok(Piece { framing, data: 0, progress: Progress::More })
    }

    fn step(&mut self, byte: u8) -> Result<At, Flaw> {
        let flaw = Err(Flaw::Syntax("A chunk of the body is malformed."));
        match (self.at, byte) {
            (At::Size { digits: 1.., size }, b'\r') => Ok(At::SizeEnd { size }),
            (At::Size { digits: 1.., size }, b';') => Ok(At::Extension { size }),
            (At::Size { size, digits }, _) => match char::from(byte).to_digit(16) {
                Some(digit) if digits < DIGITS_MAX => {
                    Ok(At::Size { size: (size << 4) | u64::from(digit), digits: digits + 1 })
                }
                _ => flaw,
            },
            (At::Extension { size }, b'\r') => Ok(At::SizeEnd { size }),
            (At::Extension { size }, b'\t' | 0x20..=0x7e | 0x80..) => {
                self.extensions += 1;
                if self.extensions > EXTENSIONS_MAX { flaw } else { Ok(At::Extension { size }) }
            }
            (At::SizeEnd { size: 0 }, b'\n') => Ok(At::Size { size: 0, digits: 0 }),
            (At::SizeEnd { size }, b'\n') => Ok(At::Data { left: size }),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::Size { size: 0, digits: 0 }),
            _ => flaw,
        }
    }
}
