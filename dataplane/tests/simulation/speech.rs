//! How things are said: as one packet or many, whole, in pieces or as a super-frame.

use crate::clients::Conn;
use crate::judge::Input;
use crate::packet::{Flags, Packet, Proto, Sending, Socket};
use crate::probe::{MIN_LEN, Probe, payload};
use crate::run::Run;
use crate::world::{Name, Node};
use skep_dataplane::ids::MacAddr;
use std::collections::BTreeMap;

impl Run {
    /// Sends one packet, or a burst of datagrams at once. Returns the number of the last.
    pub(crate) fn say(
        &mut self,
        sender: (Node, u32),
        conn: usize,
        question: Option<u64>,
        (src, dst): (Socket, Socket),
        flags: Flags,
        is_long: bool,
    ) -> u64 {
        let Conn { net, proto, .. } = self.conns[conn];
        let (sending, lens) = self.sizes(net, proto, is_long);
        let head = Packet {
            proto,
            src,
            dst,
            flags,
            seq: self.next_seq,
            ack: self.rng.next() as u32,
            options: if proto == Proto::Tcp && self.rng.percent(50) { 12 } else { 0 },
            is_pong: proto == Proto::Ping && question.is_some(),
            payload: Vec::new(),
        };
        let passed = question.map_or_else(Vec::new, |id| self.probes[&id].passed.clone());
        let mut ids = Vec::new();
        let mut all = Vec::new();
        for (nth, len) in lens.into_iter().enumerate() {
            self.figures.probes += 1;
            let id = self.figures.probes;
            let packet = Packet { payload: payload(id, len), ..head.clone() };
            all.extend(&packet.payload);
            ids.push(id);
            if self.nets[net].is_sealed() {
                self.eavesdropper.keep_from(id, &packet.payload);
            }
            let probe = Probe {
                net,
                sender,
                packet,
                ip_id: self.next_ip_id.wrapping_add(nth as u16),
                conn,
                question,
                passed: passed.clone(),
                wire: None,
                was_doubled: false,
                arrived: 0,
                got: BTreeMap::new(),
                pieces: BTreeMap::new(),
            };
            self.probes.insert(id, probe);
        }
        self.next_seq = self.next_seq.wrapping_add(all.len() as u32 + 1);
        self.tell(|| {
            format!(
                "{sender:?} says {ids:?} {proto:?} {src:?} -> {dst:?} {flags:?} {} B {sending:?}",
                all.len()
            )
        });
        self.figures.super_frames += u64::from(matches!(sending, Sending::Super(_)));
        self.transmit(sender, Packet { payload: all, ..head }, sending, &ids);
        ids[ids.len() - 1]
    }

    fn transmit(&mut self, sender: (Node, u32), packet: Packet, sending: Sending, ids: &[u64]) {
        let Name { net, ip } = self.actors[&sender].name;
        let gateway = self.nets[net].gateway;
        // Routes may lead everything through the gateway, the own subnet too.
        let is_direct = !self.model.is_outside(net, packet.dst.ip) && !self.rng.percent(5);
        let next = if is_direct { packet.dst.ip } else { gateway };
        let mut frames = packet.frames(MacAddr::for_ip(ip), MacAddr::for_ip(next), self.next_ip_id, sending);
        self.next_ip_id = self.next_ip_id.wrapping_add(64);
        if self.rng.percent(30) {
            self.rng.shuffle(&mut frames);
        }
        let out = self.hand_in(sender, frames);
        self.settle(sender.0, Input::Port { port: sender.1, probes: ids.to_vec() }, out);
    }

    /// How it is handed over, and the length of each packet.
    fn sizes(&mut self, net: usize, proto: Proto, is_long: bool) -> (Sending, Vec<usize>) {
        let most = usize::from(self.nets[net].mtu()) - 20 - 32;
        let mut len = |from: usize, to: usize| self.rng.between(from as u64, to as u64) as usize;
        let short = len(MIN_LEN, 80);
        if !is_long {
            return (Sending::Whole, vec![short]);
        }
        let full = len(MIN_LEN, most);
        let huge = len(most, 3 * most);
        let stream = len(most, 16_000);
        let size = len(300, most);
        let count = len(2, 8);
        match (proto, self.rng.below(10)) {
            (_, 0..4) => (Sending::Whole, vec![short]),
            (_, 4..6) => (Sending::Whole, vec![full]),
            (Proto::Ping, 6) | (Proto::Udp, 6) => (Sending::Whole, vec![huge]),
            (Proto::Ping, _) | (Proto::Udp, 7) => (Sending::Pieces(size.max(600)), vec![huge]),
            (_, 6 | 7) => (Sending::Unsummed, vec![full]),
            (Proto::Udp, _) => {
                let mut lens = vec![size; count];
                lens[count - 1] = short.min(size);
                (Sending::Super(size as u16), lens)
            }
            (Proto::Tcp, _) => (Sending::Super(size as u16), vec![stream]),
        }
    }
}
