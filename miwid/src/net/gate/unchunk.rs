//! A chunked body without its chunks: what an upstream sends is read by the letter that a client's body is held to. Pure:
//! bytes go in, and come out in pieces that share their memory.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Flaw, Rules,
    chunks::{Chunks, Progress},
    line,
    lines::Lines,
};

/// Trailers are few and short.
const TRAILERS: Rules = Rules { target_max: 0, header_max: 16 * 1024, fields_max: 100 };

/// Whoever takes a head apart puts some fields in.
const ROOM: usize = 4;

#[derive(Debug)]
pub struct Unchunk(State);

#[derive(Debug)]
enum State {
    Chunks(Chunks),
    Trailers(Lines),
    Ended,
}

/// What comes next of a body.
#[derive(Debug, PartialEq)]
pub enum Unchunked {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Nothing, until there are more bytes.
    More,
    /// What is left of the bytes is not of this body.
    End,
}

impl Unchunk {
    #[expect(clippy::new_without_default, reason = "a body that has not begun is no default")]
    pub fn new() -> Self {
        Self(State::Chunks(Chunks::new()))
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.0, State::Ended)
    }

    /// Takes from `bytes` what it gives. What it cannot judge yet stays there, and has to be there when more has come.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Unchunked, Flaw> {
        if let State::Chunks(chunks) = &mut self.0 {
            let piece = chunks.piece(bytes)?;
            bytes.advance(piece.framing);
            if piece.progress == Progress::Last {
                self.0 = State::Trailers(Lines::trailers());
            } else if piece.data > 0 {
                return Ok(Unchunked::Data(bytes.split_to(piece.data).freeze()));
            } else {
                return Ok(Unchunked::More);
            }
        }
        let State::Trailers(lines) = &mut self.0 else { return Ok(Unchunked::End) };
        let Some(whole) = lines.advance(bytes, &TRAILERS)? else { return Ok(Unchunked::More) };
        self.0 = State::Ended;
        let section = bytes.split_to(whole.bytes).freeze();
        let trailers = fields(&section)?;
        Ok(if trailers.is_empty() { Unchunked::End } else { Unchunked::Trailers(trailers) })
    }
}

/// The fields of a section, each by the letter of the gate; their values share its memory.
pub fn fields(section: &Bytes) -> Result<HeaderMap, Flaw> {
    let mut fields = HeaderMap::with_capacity(memchr::memchr_iter(b'\n', section).count() + ROOM);
    for line in section.split(|it| *it == b'\n').map(|it| it.strip_suffix(b"\r").unwrap_or(it)) {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line::field(line)?;
        let name = HeaderName::from_bytes(name).map_err(|_| Flaw::Header)?;
        let value = HeaderValue::from_maybe_shared(section.slice_ref(value)).map_err(|_| Flaw::Header)?;
        fields.append(name, value);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Body and trailers, however many bytes come at once.
    fn read(bytes: &[u8], pieces: usize) -> Result<(Vec<u8>, HeaderMap, Vec<u8>), Flaw> {
        let (mut unchunk, mut held) = (Unchunk::new(), BytesMut::new());
        let (mut body, mut trailers, mut pieces) = (Vec::new(), HeaderMap::new(), bytes.chunks(pieces));
        loop {
            match unchunk.next(&mut held)? {
                Unchunked::Data(data) => body.extend_from_slice(&data),
                Unchunked::Trailers(fields) => trailers = fields,
                Unchunked::More => held.extend_from_slice(pieces.next().ok_or(Flaw::Slow)?),
                Unchunked::End => {
                    held.extend_from_slice(&pieces.collect::<Vec<_>>().concat());
                    return Ok((body, trailers, held.to_vec()));
                }
            }
        }
    }

    #[test]
    fn chunks_go_and_the_body_stays_however_it_comes() {
        let sent = b"2;x=\"y\"\r\nab\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 7 \r\nx-sum: 8\r\n\r\nHTTP/1.1";
        for pieces in 1..=sent.len() {
            let (body, trailers, rest) = read(sent, pieces).unwrap();
            assert_eq!((&body[..], &rest[..]), (&b"ab0123456789"[..], &b"HTTP/1.1"[..]), "{pieces}");
            assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["7", "8"]);
        }
    }

    #[test]
    fn what_is_not_to_the_letter_is_refused_however_it_comes() {
        for sent in [
            &b"x\r\n"[..],
            b"2\nab\r\n",
            b"2\r\nabc\r\n",
            b" 2\r\nab\r\n",
            b"2 \r\nab\r\n",
            b"-2\r\nab\r\n",
            b"0x2\r\nab\r\n",
            b"00000000000000001\r\na\r\n",
            b"0\r\nContent-Length: 1\r\n\r\n",
            b"0\r\nx: y\n\r\n",
            b"0\r\n x: y\r\n\r\n",
        ] {
            for pieces in 1..=sent.len() {
                let refused = read(sent, pieces).unwrap_err();
                assert!(matches!(refused, Flaw::Syntax(_)), "{:?}: {refused:?}", String::from_utf8_lossy(sent));
            }
        }
    }
}
