//! Small bodies, encoded in one go where they are. Their encoders are kept by the thread: making one costs more than the
//! work it does here.

use std::{cell::RefCell, io};

use brotli::enc::BrotliEncoderParams;
use flate2::{Compress, Crc, FlushCompress, Status};

use super::Coding;

/// Up to here a body is small: the work is under a millisecond.
pub const INLINE_BYTES: u64 = 64 << 10;

/// RFC 1952: magic, deflate, no flags, no time, no extras, system unknown.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
const GZIP_TAIL: usize = 8;

thread_local! {
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DEFLATE: RefCell<Option<(u32, Compress)>> = const { RefCell::new(None) };
}

/// All of `bytes`, which are few.
pub fn encode(coding: Coding, level: u32, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match coding {
        Coding::Zstd => zstd(level, bytes),
        Coding::Brotli => brotli(level, bytes),
        Coding::Gzip => gzip(level, bytes),
    }
}

fn zstd(level: u32, bytes: &[u8]) -> io::Result<Vec<u8>> {
    ZSTD.with_borrow_mut(|kept| {
        let encoder = match kept {
            Some(encoder) => encoder,
            None => kept.insert(zstd::bulk::Compressor::new(level as i32)?),
        };
        encoder.set_compression_level(level as i32)?;
        encoder.compress(bytes)
    })
}

fn brotli(level: u32, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let window_log = (usize::BITS - bytes.len().leading_zeros()).clamp(10, 18);
    let params = BrotliEncoderParams {
        quality: level as i32,
        lgwin: window_log as i32,
        size_hint: bytes.len(),
        ..BrotliEncoderParams::default()
    };
    let mut out = Vec::with_capacity(bytes.len() / 4 + 64);
    brotli::BrotliCompress(&mut &bytes[..], &mut out, &params)?;
    Ok(out)
}

fn gzip(level: u32, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() / 3 + GZIP_HEAD.len() + GZIP_TAIL + 64);
    out.extend_from_slice(&GZIP_HEAD);
    DEFLATE.with_borrow_mut(|kept| {
        let deflate = match kept {
            Some((kept, deflate)) if *kept == level => {
                deflate.reset();
                deflate
            }
            _ => &mut kept.insert((level, Compress::new(flate2::Compression::new(level), false))).1,
        };
        loop {
            let read = deflate.total_in() as usize;
            let status = deflate.compress_vec(&bytes[read..], &mut out, FlushCompress::Finish)?;
            if status == Status::StreamEnd {
                return Ok::<_, io::Error>(());
            }
            out.reserve(bytes.len() / 2 + 64);
        }
    })?;
    let mut crc = Crc::new();
    crc.update(bytes);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::encoding::encoder::tests::{decoded, text};

    #[test]
    fn what_goes_in_comes_out_time_and_again() {
        for coding in Coding::ALL {
            for (level, size) in [(1, 1), (4, 1000), (4, 65_536), (6, 0), (4, 3000), (1, 65_536), (6, 100)] {
                let text = text(size);
                let out = encode(coding, level, &text).unwrap();
                assert_eq!(decoded(coding, &out), text, "{coding:?} {level} {size}");
                assert!(size < 1000 || out.len() < size / 2, "{coding:?} {level} {size}: {}", out.len());
            }
        }
    }

    #[test]
    fn what_cannot_become_smaller_is_still_whole() {
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(50_000).collect();
        for coding in Coding::ALL {
            assert_eq!(decoded(coding, &encode(coding, 5, &noise).unwrap()), noise, "{coding:?}");
        }
    }
}
