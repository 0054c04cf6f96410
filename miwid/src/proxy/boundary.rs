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

#[cfg(test)]
mod tests {
    use super::*;

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
