//! [`Acknowledgements`]: those that carry nothing else, held until the batch ends or their connection says more.
//!
//! Data and the bare end of a connection repeat what was acknowledged before them (RFC 9293 §3.1), and often they are
//! right behind: a client's question behind the last of its handshake, a server's answer behind the word that the question
//! came. Then the acknowledgement alone tells nothing, and is left out. RFC 3449 §5.2.1 calls it ACK filtering; this is its
//! careful form: no acknowledgement gives way to another that is as bare, and one that says more than a number (SACK, as
//! duplicates do, ECN) is never held. Between ends that don't know SACK, the last of a batch's duplicates may go with data,
//! and is not counted as one then (RFC 5681 §2).

use super::{Flow, IP_AT, Shape, TOTAL_LEN, TRANSPORT_AT, same_ip};
use crate::ids::PortId;
use crate::wire::vnet::VnetHdr;
use crate::wire::{ipv4, tcp, u16_at, u32_at};

/// As many connections as a batch is likely to have that just acknowledge. One more, and all are written.
const MOST_HELD: usize = 256;
/// Two bytes of padding, then kind and length of the timestamps (RFC 7323 appendix A).
const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];
const WITHOUT_OPTIONS: usize = TRANSPORT_AT + tcp::MIN_HEADER_LEN;
const WITH_TIMESTAMPS: usize = WITHOUT_OPTIONS + 12;
const OPTIONS: usize = WITHOUT_OPTIONS;
const ACKNOWLEDGED: usize = TRANSPORT_AT + 8;
/// Length of the header, reserved bits and the ninth flag.
const OFFSET: usize = TRANSPORT_AT + 12;

/// At most one of each connection.
#[derive(Debug)]
pub(crate) struct Acknowledgements {
    /// Whose they are, in the same order.
    flows: Vec<Flow>,
    held: Vec<Bare>,
}

/// An acknowledgement and nothing more.
#[derive(Clone, Copy, Debug)]
struct Bare {
    vnet: VnetHdr,
    len: usize,
    frame: [u8; WITH_TIMESTAMPS],
}

impl Acknowledgements {
    /// The longest frame that is held.
    pub(crate) const FRAME_BYTES: usize = WITH_TIMESTAMPS;

    pub(crate) fn new() -> Self {
        Self { flows: Vec::with_capacity(MOST_HELD), held: Vec::with_capacity(MOST_HELD) }
    }

    /// Whether the frame is kept, for now. Else it is due, behind what was handed to `out`.
    ///
    /// `shape`: of the frame, if it can say what an acknowledgement said.
    pub(super) fn offer(
        &mut self,
        flow: Flow,
        shape: impl FnOnce() -> Option<Shape>,
        vnet: VnetHdr,
        frame: &[u8],
        out: &mut impl FnMut(PortId, VnetHdr, &[u8]),
    ) -> bool {
        if let Some(bare) = self.take(&flow)
            && !shape().is_some_and(|shape| bare.is_said_by(&shape, frame))
        {
            bare.write(flow.port, out);
        }
        let Some(bare) = Bare::of(vnet, frame) else { return false };
        if self.held.len() == MOST_HELD {
            self.release(out);
        }
        self.flows.push(flow);
        self.held.push(bare);
        true
    }

    /// As [`Self::offer`], for frames that a port has sent.
    pub(crate) fn hold_back(
        &mut self,
        port: PortId,
        vnet: VnetHdr,
        frame: &[u8],
        out: &mut impl FnMut(PortId, VnetHdr, &[u8]),
    ) -> bool {
        let Some(flow) = Flow::of(port, frame) else {
            self.release(out);
            return false;
        };
        self.offer(flow, || Shape::of(vnet, frame), vnet, frame, out)
    }

    fn take(&mut self, flow: &Flow) -> Option<Bare> {
        let at = self.flows.iter().position(|own| own == flow)?;
        self.flows.swap_remove(at);
        Some(self.held.swap_remove(at))
    }

    pub(crate) fn release(&mut self, out: &mut impl FnMut(PortId, VnetHdr, &[u8])) {
        for (flow, bare) in self.flows.drain(..).zip(self.held.drain(..)) {
            bare.write(flow.port, out);
        }
    }
}

impl Bare {
    /// `frame`: an unfragmented IPv4 packet without options.
    fn of(vnet: VnetHdr, frame: &[u8]) -> Option<Self> {
        let is_bare = frame[IP_AT + 9] == ipv4::TCP
            && usize::from(u16_at(frame, TOTAL_LEN)) == frame.len() - IP_AT
            && vnet.gso_type == VnetHdr::GSO_NONE
            && frame.get(TRANSPORT_AT + tcp::FLAGS) == Some(&tcp::ACK)
            && match frame.len() {
                WITHOUT_OPTIONS => frame[OFFSET] == 5 << 4,
                WITH_TIMESTAMPS => frame[OFFSET] == 8 << 4 && frame[OPTIONS..OPTIONS + 4] == TIMESTAMPS,
                _ => false,
            };
        is_bare.then(|| {
            let mut own = [0; WITH_TIMESTAMPS];
            own[..frame.len()].copy_from_slice(frame);
            Self { vnet, len: frame.len(), frame: own }
        })
    }

    /// Whether what follows in the same connection leaves nothing of this to tell.
    fn is_said_by(&self, shape: &Shape, next: &[u8]) -> bool {
        let own = &self.frame[..self.len];
        let is_at_least = |at: usize| u32_at(next, at).wrapping_sub(u32_at(own, at)) as i32 >= 0;
        shape.is_tcp
            && shape.headers == own.len()
            && shape.seq == u32_at(own, TRANSPORT_AT + tcp::SEQUENCE)
            && same_ip(own, next)
            && own[OFFSET] == next[OFFSET]
            && is_at_least(ACKNOWLEDGED)
            && (self.len == WITHOUT_OPTIONS
                || (next[OPTIONS..OPTIONS + 4] == TIMESTAMPS && is_at_least(OPTIONS + 4)))
    }

    fn write(&self, port: PortId, out: &mut impl FnMut(PortId, VnetHdr, &[u8])) {
        out(port, self.vnet, &self.frame[..self.len]);
    }
}

#[cfg(test)]
mod tests;
