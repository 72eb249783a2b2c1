//! [`Staged`]: small frames that wait to be written until their batch of datagrams is judged.
//!
//! A write to a TAP is the whole of a receiver's kernel, which leaves little of the engine in the caches; and it wakes who
//! receives. So a batch is opened, judged and merged first, and then written.

use crate::VnetHdr;
use crate::ids::PortId;
use std::ops::Range;

/// Larger ones aren't worth the copy, in bytes. One that an Ethernet carries is.
const LARGEST: usize = 1_600;
/// Of all that wait.
const BYTES: usize = 1 << 16;
const FRAMES: usize = 512;

#[derive(Debug)]
pub(super) struct Staged {
    bytes: Box<[u8]>,
    len: usize,
    frames: Vec<Frame>,
    /// Of `frames`, those that went out already.
    written: usize,
}

#[derive(Debug)]
struct Frame {
    port: PortId,
    vnet: VnetHdr,
    place: Range<usize>,
}

impl Staged {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; BYTES].into_boxed_slice(),
            len: 0,
            frames: Vec::with_capacity(FRAMES),
            written: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Takes the frame. One that it has no room for is handed to `write`, behind all that waited.
    pub(super) fn push(
        &mut self,
        port: PortId,
        vnet: VnetHdr,
        frame: &[u8],
        mut write: impl FnMut(PortId, VnetHdr, &[u8]),
    ) {
        let end = self.len + frame.len();
        if frame.len() > LARGEST || end > BYTES || self.frames.len() == FRAMES {
            self.pop(FRAMES, &mut write);
            return write(port, vnet, frame);
        }
        self.bytes[self.len..end].copy_from_slice(frame);
        self.frames.push(Frame { port, vnet, place: self.len..end });
        self.len = end;
    }

    /// Hands the oldest of them to `write`, and says what port the last of these is for.
    pub(super) fn pop(
        &mut self,
        most: usize,
        mut write: impl FnMut(PortId, VnetHdr, &[u8]),
    ) -> Option<PortId> {
        let end = self.frames.len().min(self.written + most);
        let share = &self.frames[self.written..end];
        for Frame { port, vnet, place } in share {
            write(*port, *vnet, &self.bytes[place.clone()]);
        }
        let last = share.last().map(|frame| frame.port);
        self.written = end;
        if end == self.frames.len() {
            self.frames.clear();
            (self.len, self.written) = (0, 0);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small ones and large ones, shares of all sizes, more than there is room for.
    #[test]
    fn whatever_is_staged_is_written_once_and_in_order() {
        for (small, many) in [(60, 3 * FRAMES), (LARGEST, 3 * BYTES / LARGEST)] {
            for share in [1, 7, 32, FRAMES] {
                let (mut staged, mut written) = (Staged::new(), Vec::new());
                for nth in 0..many {
                    let len = if nth % 100 == 99 { LARGEST + 1 } else { small };
                    let frame = [&(nth as u32).to_be_bytes()[..], &vec![7; len - 4]].concat();
                    staged.push(PortId(nth as u32), VnetHdr::default(), &frame, |port, _, frame| {
                        written.push((port, frame.to_vec()));
                    });
                    if nth % 200 == 150 {
                        staged.pop(share, |port, _, frame| written.push((port, frame.to_vec())));
                    }
                }
                while let Some(port) =
                    staged.pop(share, |port, _, frame| written.push((port, frame.to_vec())))
                {
                    assert_eq!(Some(port), written.last().map(|(port, _)| *port));
                }
                assert!(staged.is_empty());
                assert_eq!(written.len(), many);
                for (nth, (port, frame)) in written.iter().enumerate() {
                    assert_eq!((*port, &frame[..4]), (PortId(nth as u32), &(nth as u32).to_be_bytes()[..]));
                }
            }
        }
    }
}
