//! Where a WebSocket's frames end (RFC 6455, 5.2), in a few bytes of state: a Close of ours may stand only between two.

/// Opcode close, and status 1012: the service restarts.
pub(super) const CLOSE_1012: [u8; 4] = [0x88, 2, 0x03, 0xf4];

/// Longest head: two bytes, a length of eight, a mask of four.
const HEAD_MAX: usize = 14;

#[derive(Default)]
pub(super) struct Boundary {
    head: [u8; HEAD_MAX],
    have: usize,
    payload: u64,
}

impl Boundary {
    pub(super) fn passed(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload > 0 {
                let skipped = bytes.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if self.have >= 2 && self.have == self.head_length() {
                self.payload = self.length();
                self.have = 0;
            }
        }
    }

    pub(super) fn between_frames(&self) -> bool {
        self.payload == 0 && self.have == 0
    }

    /// Of the frame that has begun, so many bytes are still to come at least; none between two frames.
    fn missing(&self) -> usize {
        match (self.payload, self.have) {
            (0, 0) => 0,
            (0, have @ ..2) => 2 - have,
            (0, have) => self.head_length() - have,
            (payload, _) => usize::try_from(payload).unwrap_or(usize::MAX),
        }
    }

    fn head_length(&self) -> usize {
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + mask
            + match self.head[1] & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            }
    }

    fn length(&self) -> u64 {
        let extended = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        match self.head[1] & 0x7f {
            126 => extended(&self.head[2..4]),
            127 => extended(&self.head[2..10]),
            short => u64::from(short),
        }
    }
}

/// The frames of one tunnel on their way to the client: what was read is written before anything of ours is.
#[derive(Default)]
pub(super) struct Course {
    read: Boundary,
    written: Boundary,
    /// Bytes that were read and are not yet written.
    held: u64,
    /// No further frame is begun.
    ending: bool,
}

impl Course {
    pub(super) fn end(&mut self) {
        self.ending = true;
    }

    /// How much may be read; `None`: nothing any more.
    pub(super) fn room(&self) -> Option<usize> {
        if !self.ending {
            return Some(usize::MAX);
        }
        Some(self.read.missing()).filter(|it| *it > 0)
    }

    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.read.passed(bytes);
        self.held += bytes.len() as u64;
    }

    pub(super) fn written(&mut self, bytes: &[u8]) {
        self.written.passed(bytes);
        self.held -= bytes.len() as u64;
    }

    /// A frame of ours may follow, and cuts nothing.
    pub(super) fn is_clear(&self) -> bool {
        self.held == 0 && self.written.between_frames()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_course_reads_to_the_end_of_its_frame_and_no_further() {
        let mut course = Course::default();
        assert_eq!(course.room(), Some(usize::MAX));
        course.read(&[0x81, 2, 1, 2, 0x81]);
        course.end();
        assert_eq!(course.room(), Some(1), "a length");
        course.read(&[126]);
        assert_eq!(course.room(), Some(2), "the rest of it");
        course.read(&[1, 0]);
        assert_eq!(course.room(), Some(256));
        course.read(&[0; 256]);
        assert_eq!((course.room(), course.is_clear()), (None, false));
        course.written(&[0x81, 2, 1, 2]);
        assert!(!course.is_clear(), "between two frames, but one more was read");
        course.written(&[&[0x81, 126, 1, 0][..], &[0; 256]].concat());
        assert!(course.is_clear());
    }

    #[test]
    fn a_frame_ends_where_its_length_says_however_the_bytes_are_cut() {
        let long = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[0; 65536]].concat();
        let frames = [
            vec![0x81, 0],
            vec![0x81, 2, 1, 2],
            vec![0x81, 0x82, 9, 9, 9, 9, 1, 2],
            [&[0x82, 126, 1, 0][..], &[0; 256]].concat(),
            long,
        ];
        for frame in &frames {
            for chunk in [1, 3, 100, 100_000] {
                let mut boundary = Boundary::default();
                let mut left = frame.len();
                for part in frame.chunks(chunk) {
                    boundary.passed(part);
                    left -= part.len();
                    assert_eq!(boundary.between_frames(), left == 0, "{:?} cut by {chunk}", &frame[..2]);
                }
            }
        }
    }
}
