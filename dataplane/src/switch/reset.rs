//! Ending TCP connections whose backend is gone, on both sides.

use super::Pass;
use crate::engine::Output;
use crate::ids::MacAddr;
use crate::index::{Index, NetworkIndex};
use crate::nat::flow::{Direction, Ends, Flow};
use crate::snapshot::Location;
use crate::wire::vnet::VnetHdr;
use crate::wire::{checksum, ethernet, ipv4, put_u16, tcp, vxlan};

const IP_AT: usize = ethernet::HEADER_LEN;
const TCP_AT: usize = IP_AT + ipv4::MIN_HEADER_LEN;
const FRAME_LEN: usize = TCP_AT + tcp::MIN_HEADER_LEN;

/// A segment that resets a connection.
pub(super) struct Reset {
    pub(super) src_mac: MacAddr,
    pub(super) dst_mac: MacAddr,
    pub(super) ends: Ends,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
}

impl Reset {
    pub(super) fn frame(&self) -> [u8; FRAME_LEN] {
        let Ends { src, src_port, dst, dst_port } = self.ends;
        let mut frame = [0; FRAME_LEN];
        let segment = &mut frame[TCP_AT..];
        tcp::write(segment, src_port, dst_port, self.seq, self.ack, self.flags);
        let full = checksum::transport(src, dst, ipv4::TCP, segment);
        put_u16(segment, tcp::CHECKSUM, full);
        ipv4::write(&mut frame[IP_AT..], ipv4::TCP, FRAME_LEN - IP_AT, src, dst);
        ethernet::write(&mut frame, self.dst_mac, self.src_mac, ethernet::IPV4);
        frame
    }
}

impl<O: Output> Pass<'_, O> {
    /// Tells both ends that their connection is over, as far as they are still where they were under `old`.
    pub(crate) fn reset_both(&mut self, flow: &Flow, old: &Index) {
        let Some(network) = self.index.network(flow.vni) else { return };
        let is_there = |direction| {
            let ip = flow.translated(direction).dst;
            !network.subnet.contains(&ip) || self.index.is_where_it_was(old, flow.vni, ip)
        };
        let (has_client, has_backend) = (is_there(Direction::Reverse), is_there(Direction::Forward));
        // A client behind another node hears it from that node's engine, which has the same news.
        if has_client && flow.via().is_none() {
            self.reset_end(network, flow, Direction::Reverse, flow.reset_for_client());
        }
        if has_backend {
            self.reset_end(network, flow, Direction::Forward, flow.reset_for_backend());
        }
    }

    /// A reset that travels in `direction`.
    fn reset_end(
        &mut self,
        network: &NetworkIndex,
        flow: &Flow,
        direction: Direction,
        (seq, ack): (u32, u32),
    ) {
        let ends = flow.translated(direction);
        let is_foreign = !network.subnet.contains(&ends.dst);
        let receiver = network.endpoint(ends.dst).or_else(|| network.host(None).filter(|_| is_foreign));
        let Some(receiver) = receiver else { return };
        let from_outside = !network.subnet.contains(&ends.src);
        let src_mac = match (network.endpoint(ends.src), network.host(None)) {
            (Some(sender), _) => sender.mac,
            // As its packets came: on this node from the gateway, on another from this node's host endpoint.
            (None, _) if from_outside && matches!(receiver.location, Location::Local(_)) => {
                network.gateway_mac
            }
            (None, Some(host)) if from_outside => host.mac,
            (None, _) => MacAddr::for_ip(ends.src),
        };
        let flags = tcp::RST | tcp::ACK;
        let frame = Reset { src_mac, dst_mac: receiver.mac, ends, seq, ack, flags }.frame();
        match receiver.location {
            Location::Local(port) => self.write(port, VnetHdr::default(), &frame),
            Location::Remote(vtep) => {
                let mut datagram = [0; vxlan::HEADER_LEN + FRAME_LEN];
                datagram[vxlan::HEADER_LEN..].copy_from_slice(&frame);
                self.underlay().encapsulate_answer(network, &mut datagram, vtep);
            }
        }
    }
}
