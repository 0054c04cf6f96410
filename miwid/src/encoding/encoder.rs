//! One encoder for each coding behind one face: bytes go in, and whoever wants some out takes them.
//!
//! Windows are small on purpose. A window of megabytes per answer would make the memory of a server a matter of its
//! clients, and text gains little from it.

use std::io::{self, Write};

use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::write::GzEncoder;
use zstd::{stream::write::Encoder as ZstdEncoder, zstd_safe::CParameter};

use super::Coding;

/// What an encoder is for decides how much memory it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The body of one answer.
    Body,
    /// A stream that may stay open for days and has little to say at a time.
    Events,
    /// Once, for many: nobody waits.
    Best,
}

impl Purpose {
    fn window_log(self) -> u32 {
        match self {
            Self::Body => 18,
            Self::Events => 15,
            Self::Best => 22,
        }
    }

    /// zstd's tables have so many places, by their logarithm. `None`: as many as the level asks for.
    fn table_log(self) -> Option<u32> {
        match self {
            Self::Body => Some(17),
            Self::Events => Some(14),
            Self::Best => None,
        }
    }
}

/// From here on brotli takes tables of another kind, which are five times as large.
const BROTLI_HINT_MAX: u64 = (1 << 20) - 1;
/// zstd and brotli know no smaller window.
const WINDOW_LOG_MIN: u32 = 10;
const BROTLI_BUFFER: usize = 16 << 10;

pub struct Encoder(Kind);

enum Kind {
    Zstd(ZstdEncoder<'static, Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
    /// It was finished; what it had left to say.
    Finished(Vec<u8>),
}

impl Encoder {
    /// `length` of all that will come, when that is known.
    pub fn new(coding: Coding, level: u32, purpose: Purpose, length: Option<u64>) -> io::Result<Self> {
        let out = Vec::new();
        let needed = length.map_or(u32::MAX, |it| u64::BITS - it.saturating_sub(1).leading_zeros());
        let window_log = purpose.window_log().min(needed).max(WINDOW_LOG_MIN);
        Ok(Self(match coding {
            Coding::Gzip => Kind::Gzip(GzEncoder::new(out, flate2::Compression::new(level))),
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: level as i32,
                    lgwin: window_log as i32,
                    size_hint: length.map_or(0, |it| it.min(BROTLI_HINT_MAX) as usize),
                    ..BrotliEncoderParams::default()
                };
                Kind::Brotli(Box::new(brotli::CompressorWriter::with_params(out, BROTLI_BUFFER, &params)))
            }
            Coding::Zstd => Kind::Zstd(zstd(out, level, purpose, window_log, length)?),
        }))
    }

    /// About what an encoder keeps in memory, its output apart; measured.
    pub fn cost(coding: Coding, level: u32, purpose: Purpose) -> usize {
        match (coding, purpose) {
            (Coding::Gzip, _) => 384 << 10,
            (Coding::Zstd, Purpose::Events) => 320 << 10,
            (Coding::Zstd, _) => 1536 << 10,
            (Coding::Brotli, Purpose::Events) => 768 << 10,
            (Coding::Brotli, _) if level <= 4 => 2 << 20,
            (Coding::Brotli, _) => 3584 << 10,
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Kind::Zstd(encoder) => encoder.write_all(bytes),
            Kind::Brotli(encoder) => encoder.write_all(bytes),
            Kind::Gzip(encoder) => encoder.write_all(bytes),
            Kind::Finished(_) => Err(io::Error::other("the encoder was finished")),
        }
    }

    /// Afterwards all that was written can be decoded from what comes out.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Zstd(encoder) => encoder.flush(),
            Kind::Brotli(encoder) => encoder.flush(),
            Kind::Gzip(encoder) => encoder.flush(),
            Kind::Finished(_) => Ok(()),
        }
    }

    pub fn finish(&mut self) -> io::Result<()> {
        let out = match std::mem::replace(&mut self.0, Kind::Finished(Vec::new())) {
            Kind::Zstd(encoder) => encoder.finish()?,
            Kind::Brotli(encoder) => encoder.into_inner(),
            Kind::Gzip(encoder) => encoder.finish()?,
            Kind::Finished(out) => out,
        };
        self.0 = Kind::Finished(out);
        Ok(())
    }

    /// How much `take` would give.
    pub fn ready(&self) -> usize {
        match &self.0 {
            Kind::Zstd(encoder) => encoder.get_ref().len(),
            Kind::Brotli(encoder) => encoder.get_ref().len(),
            Kind::Gzip(encoder) => encoder.get_ref().len(),
            Kind::Finished(out) => out.len(),
        }
    }

    pub fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(match &mut self.0 {
            Kind::Zstd(encoder) => encoder.get_mut(),
            Kind::Brotli(encoder) => encoder.get_mut(),
            Kind::Gzip(encoder) => encoder.get_mut(),
            Kind::Finished(out) => out,
        }))
    }
}

fn zstd(
    out: Vec<u8>,
    level: u32,
    purpose: Purpose,
    window_log: u32,
    length: Option<u64>,
) -> io::Result<ZstdEncoder<'static, Vec<u8>>> {
    let mut encoder = ZstdEncoder::new(out, level as i32)?;
    encoder.window_log(window_log)?;
    // By themselves high levels take tables of tens of megabytes, however small the window.
    if let Some(table_log) = purpose.table_log() {
        encoder.set_parameter(CParameter::HashLog(table_log))?;
        encoder.set_parameter(CParameter::ChainLog(table_log))?;
    }
    encoder.set_pledged_src_size(length)?;
    Ok(encoder)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read;

    use super::*;

    /// What can be decoded of `bytes`, whole or not.
    pub(crate) fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut reader: Box<dyn Read + '_> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(bytes).unwrap()),
        };
        let (mut out, mut chunk) = (Vec::new(), [0; 1000]);
        while let Ok(count @ 1..) = reader.read(&mut chunk) {
            out.extend_from_slice(&chunk[..count]);
        }
        out
    }

    pub(crate) fn text(bytes: usize) -> Vec<u8> {
        (0_u64..).flat_map(|it| format!("line {} of many\n", it * it % 977).into_bytes()).take(bytes).collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let text = text(700_000);
        for coding in Coding::ALL {
            for (purpose, level) in [(Purpose::Body, 1), (Purpose::Body, 6), (Purpose::Events, 3), (Purpose::Best, 9)] {
                for length in [None, Some(text.len() as u64)] {
                    let mut encoder = Encoder::new(coding, level, purpose, length).unwrap();
                    for piece in text.chunks(100_000) {
                        encoder.write(piece).unwrap();
                    }
                    encoder.finish().unwrap();
                    assert!(encoder.ready() < text.len() / 3, "{coding:?} {purpose:?}");
                    assert_eq!(decoded(coding, &encoder.take()), text, "{coding:?} {purpose:?} {level} {length:?}");
                }
            }
        }
    }

    #[test]
    fn what_was_flushed_can_be_read_at_once() {
        for coding in Coding::ALL {
            for purpose in [Purpose::Body, Purpose::Events] {
                let mut encoder = Encoder::new(coding, 4, purpose, None).unwrap();
                let (mut out, mut expected) = (Vec::new(), Vec::new());
                for number in 0..50 {
                    let event = format!("data: event {number}\n\n");
                    encoder.write(event.as_bytes()).unwrap();
                    encoder.flush().unwrap();
                    out.extend_from_slice(&encoder.take());
                    expected.extend_from_slice(event.as_bytes());
                    assert_eq!(decoded(coding, &out), expected, "{coding:?} {purpose:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_something_too() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding, 4, Purpose::Body, Some(0)).unwrap();
            encoder.finish().unwrap();
            let out = encoder.take();
            assert!(!out.is_empty() && decoded(coding, &out).is_empty(), "{coding:?}");
            assert!(encoder.write(b"late").is_err());
        }
    }
}
