//! Cuts a stream of bytes into lines: the framing of [`crate::session`], one JSON message each.

use bytes::{Buf, Bytes, BytesMut};

/// Collects bytes until a line is whole. Holds at most `limit` bytes of an unfinished line.
#[derive(Debug)]
pub struct Lines {
    buffer: BytesMut,
    /// Bytes of `buffer` already searched for a line's end.
    searched: usize,
    limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message is longer than {limit} bytes")]
pub struct LineTooLong {
    limit: usize,
}

impl Lines {
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, limit }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line without its end; None until more bytes come.
    pub fn pop(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let length = end.map_or(self.buffer.len(), |end| self.searched + end);
        if length > self.limit {
            return Err(LineTooLong { limit: self.limit });
        }
        if end.is_none() {
            self.searched = length;
            return Ok(None);
        }
        let line = self.buffer.split_to(length).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn however_the_bytes_arrive_the_lines_are_the_same(
            lines in prop::collection::vec("[a-z]{0,9}", 0..9),
            cuts in prop::collection::vec(1usize..7, 1..20),
        ) {
            let stream: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let (mut cutter, mut seen, mut rest) = (Lines::new(9), Vec::new(), stream.as_bytes());
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                cutter.push(piece);
                while let Some(line) = cutter.pop().unwrap() {
                    seen.push(String::from_utf8(line.to_vec()).unwrap());
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, lines);
        }
    }

    #[test]
    fn a_line_over_the_limit_is_an_error_before_its_end_comes() {
        let mut lines = Lines::new(4);
        lines.push(b"1234\n12345");
        assert_eq!(lines.pop().unwrap().unwrap(), "1234");
        assert_eq!(lines.pop(), Err(LineTooLong { limit: 4 }));
    }
}
