//! Docker's multiplexed stream: `[stream, 0, 0, 0, length: u32 big endian]` and the payload.

use bytes::{BufMut, Bytes, BytesMut};
use skep_model::session::LogStream;

pub(crate) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// A terminal's: one stream, as it comes.
pub(crate) const RAW: &str = "application/vnd.docker.raw-stream";
const HEADER_BYTES: usize = 8;

pub(crate) fn frame(stream: LogStream, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + payload.len());
    frame.put_u8(match stream {
        LogStream::Stdout => 1,
        LogStream::Stderr => 2,
    });
    frame.put_bytes(0, 3);
    frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_carries_stream_and_length() {
        assert_eq!(&frame(LogStream::Stderr, b"hi")[..], [2, 0, 0, 0, 0, 0, 0, 2, b'h', b'i']);
    }
}
