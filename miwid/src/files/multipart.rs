//! `multipart/byteranges`: several slices of one file in one answer, with its length known before the first byte.

use bytes::Bytes;
use http::HeaderValue;

use super::{body::Segment, range::Slice};

pub(super) struct Multipart {
    pub(super) content_type: HeaderValue,
    pub(super) segments: Vec<Segment>,
}

/// `boundary` must not occur in the file; a random one of 128 bits does not.
pub(super) fn multipart(slices: &[Slice], total: u64, content_type: &HeaderValue, boundary: &str) -> Multipart {
    let mut segments = Vec::with_capacity(slices.len() * 2 + 1);
    let kind = content_type.to_str().unwrap_or("application/octet-stream");
    for slice in slices {
        let before = if segments.is_empty() { "" } else { "\r\n" };
        let (first, last) = (slice.offset, slice.last());
        let head = format!(
            "{before}--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: bytes {first}-{last}/{total}\r\n\r\n"
        );
        segments.push(Segment::Bytes(Bytes::from(head)));
        segments.push(Segment::File { offset: slice.offset, length: slice.length });
    }
    segments.push(Segment::Bytes(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    let outer = format!("multipart/byteranges; boundary={boundary}");
    let content_type = HeaderValue::try_from(outer).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    Multipart { content_type, segments }
}

pub(super) fn boundary() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_framed_and_closed() {
        let slices = [Slice { offset: 0, length: 2 }, Slice { offset: 500, length: 3 }];
        let made = multipart(&slices, 1000, &HeaderValue::from_static("text/plain"), "B");
        assert_eq!(made.content_type, "multipart/byteranges; boundary=B");
        let text: String = made
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Segment::File { offset, length } => format!("<{offset}+{length}>"),
            })
            .collect();
        assert_eq!(
            text,
            "--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/1000\r\n\r\n<0+2>\r\n\
             --B\r\nContent-Type: text/plain\r\nContent-Range: bytes 500-502/1000\r\n\r\n<500+3>\r\n--B--\r\n"
        );
    }

    #[test]
    fn boundaries_differ() {
        assert_ne!(boundary(), boundary());
        assert_eq!(boundary().len(), 32);
    }
}
