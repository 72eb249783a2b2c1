//! Docker's multiplexed streams: frames of stdout and stderr on one connection.
//!
//! A frame is `[stream, 0, 0, 0, length as u32 big endian]` and its payload; stream 1 is stdout, 2 stderr.

use std::io::{self, Write};

use bytes::{Buf, Bytes, BytesMut};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the daemon's stream is out of step: it has a frame of unknown kind {0}")]
    Kind(u8),
    #[error("the daemon's stream is out of step: it has a frame of {0} bytes")]
    Length(usize),
    #[error("the daemon's stream ended within a frame")]
    Truncated,
}

/// The largest frame that is taken. The daemon's frames are lines or what a pipe held, far below; a larger one means
/// that the stream is out of step.
const MAX_FRAME: usize = 16 << 20;
const HEADER: usize = 8;

/// Bytes in, frames out.
#[derive(Default)]
pub(crate) struct Demux {
    buffer: BytesMut,
}

impl Demux {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; None until more bytes were pushed.
    pub(crate) fn next(&mut self) -> Result<Option<(Stream, Bytes)>, Broken> {
        let Some(&[kind, _, _, _, a, b, c, d]) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let stream = match kind {
            0 | 1 => Stream::Stdout,
            2 => Stream::Stderr,
            other => return Err(Broken::Kind(other)),
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_FRAME {
            return Err(Broken::Length(length));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some((stream, self.buffer.split_to(length).freeze())))
    }

    /// To be called at the end of the stream.
    pub(crate) fn finish(&self) -> Result<(), Broken> {
        if self.buffer.is_empty() { Ok(()) } else { Err(Broken::Truncated) }
    }
}

/// Writes to this process's stream of the same kind.
pub(crate) fn write(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    fn write_all(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
        to.write_all(bytes)?;
        to.flush()
    }
    match stream {
        Stream::Stdout => write_all(io::stdout(), bytes),
        Stream::Stderr => write_all(io::stderr(), bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_broken_stream_is_an_error() {
        let next = |bytes: &[u8]| {
            let mut demux = Demux::default();
            demux.push(bytes);
            demux.next().and_then(|frame| demux.finish().map(|()| frame))
        };
        assert_eq!(next(b"\x01\0\0\0\0\0\0\x03ab"), Err(Broken::Truncated));
        assert_eq!(next(b"\x01\0\0"), Err(Broken::Truncated));
        assert_eq!(next(b"\x07\0\0\0\0\0\0\0"), Err(Broken::Kind(7)));
        assert_eq!(next(b"\x01\0\0\0\xff\0\0\0"), Err(Broken::Length(0xff00_0000)));
        assert_eq!(next(b""), Ok(None));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            frames in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            cuts in prop::collection::vec(1usize..30, 1..8),
        ) {
            let mut wire = Vec::new();
            for (stderr, payload) in &frames {
                wire.extend([1 + u8::from(*stderr), 0, 0, 0]);
                wire.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
                wire.extend(payload);
            }
            let (mut demux, mut got, mut rest, mut cuts) = (Demux::default(), Vec::new(), &wire[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                demux.push(chunk);
                rest = after;
                while let Some((stream, payload)) = demux.next().unwrap() {
                    got.push((stream == Stream::Stderr, payload.to_vec()));
                }
            }
            prop_assert!(demux.finish().is_ok());
            prop_assert_eq!(got, frames);
        }
    }
}
