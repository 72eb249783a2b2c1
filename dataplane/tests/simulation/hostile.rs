//! Neighbours who forge: containers, outside clients, members of the cluster and strangers on the underlay.

use crate::clients::{OUTSIDE, TCP_PORT, UDP_PORT};
use crate::judge::Input;
use crate::packet::{Flags, Packet, Proto, Sending, Socket, ip_at};
use crate::run::{Life, Run};
use crate::station::Out;
use crate::world::{Name, Node, vtep};
use skep_dataplane::VnetHdr;
use skep_dataplane::ids::MacAddr;
use std::net::Ipv4Addr;

/// An address of the underlay that is no node's.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 250);

impl Run {
    /// Somebody forges something, or honestly asks who has an address.
    pub(crate) fn forge(&mut self) {
        match self.rng.below(8) {
            0 | 1 => self.forge_from_port(),
            2 => self.forge_arp(),
            3 => self.ask_arp(),
            4 => self.claim_reserved(),
            _ => self.forge_from_underlay(),
        }
    }

    /// A container uses another's address, MAC, or both; or an address of another network, a service or a gateway.
    fn forge_from_port(&mut self) {
        let Some((at, own)) = self.anyone(false) else { return };
        let victim = self.any_name(None);
        let to = self.any_name(Some(own.net));
        let (src, mac) = match self.rng.below(3) {
            0 => (victim.ip, MacAddr::for_ip(own.ip)),
            1 => (own.ip, MacAddr::for_ip(victim.ip)),
            _ => (victim.ip, MacAddr::for_ip(victim.ip)),
        };
        if victim.ip == own.ip {
            return;
        }
        let frames = self.forged(src, to.ip, mac, MacAddr::for_ip(to.ip));
        self.tell(|| format!("{at:?} {own:?} forges {src} {mac} to {to:?}"));
        let out = self.hand_in(at, frames);
        self.nothing(at.0, out);
    }

    /// An outside client claims an address it cannot have, on its way to a published port.
    fn claim_reserved(&mut self) {
        let Some((at, own)) = self.anyone(true) else { return };
        let victim = self.any_name(None);
        let odd =
            [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)];
        let src = if self.rng.percent(50) { victim.ip } else { *self.rng.pick(&odd) };
        let services = self.world().services.keys().filter(|name| name.net == own.net).map(|name| name.ip);
        let services: Vec<_> = services.collect();
        if services.is_empty() || src == own.ip {
            return;
        }
        let to = *self.rng.pick(&services);
        let frames = self.forged(src, to, MacAddr::for_ip(own.ip), MacAddr::for_ip(to));
        let out = self.hand_in(at, frames);
        self.nothing(at.0, out);
    }

    /// A datagram to an endpoint of a node: from a member that does not have its sender, from a stranger, of another
    /// network, or with flags of another protocol.
    fn forge_from_underlay(&mut self) {
        let to_node = self.rng.between(1, self.nodes() as u64 + 1) as Node;
        let from = self.rng.between(1, self.nodes() as u64 + 1) as Node;
        let there = self.model.view(to_node).seats.clone();
        let here: Vec<Name> =
            there.iter().filter(|(_, seat)| seat.node == to_node).map(|(name, _)| *name).collect();
        if here.is_empty() {
            return;
        }
        let to = *self.rng.pick(&here);
        let same_net = self.rng.percent(80).then_some(to.net);
        let victim = self.any_name(same_net);
        let is_honest = there.get(&Name { ip: victim.ip, ..to }).is_some_and(|seat| seat.node == from);
        let mut header = [8, 0, 0, 0, 0, 0, 0, 0];
        header[4..7].copy_from_slice(&self.nets[to.net].vni.to_be_bytes()[1..]);
        let mut sender = vtep(from);
        match self.rng.below(5) {
            0..3 if !is_honest => {}
            3 => header[0] = 0x88,
            4 => (header[0], header[7]) = (0, 1),
            _ => sender = STRANGER,
        }
        // Some claim to bring a client of a published port.
        let src = if self.rng.percent(20) { *self.rng.pick(&OUTSIDE) } else { victim.ip };
        let frames = self.forged(src, to.ip, MacAddr::for_ip(victim.ip), MacAddr::for_ip(to.ip));
        for (_, frame) in frames {
            let bytes = [&header[..], &frame].concat();
            self.tell(|| {
                format!("{sender} forges to node {to_node}: {header:02x?} {src} for {victim:?} to {to:?}")
            });
            let out = self.hand_over(sender, to_node, bytes);
            self.nothing(to_node, out);
        }
    }

    /// ARP that would poison a cache, were there one.
    fn forge_arp(&mut self) {
        let Some((at, own)) = self.anyone(false) else { return };
        let victim = self.any_name(Some(own.net)).ip;
        if victim == own.ip {
            return;
        }
        let mac = MacAddr::for_ip(own.ip);
        let (operation, sender, target) = match self.rng.below(4) {
            0 => (1, victim, victim),
            1 => (1, victim, own.ip),
            2 => (2, victim, own.ip),
            _ => (1, own.ip, own.ip),
        };
        let out = self.hand_in(at, vec![(VnetHdr::default(), arp(operation, mac, sender, target))]);
        self.nothing(at.0, out);
    }

    /// A question by its rules is answered from the snapshot, or not at all.
    fn ask_arp(&mut self) {
        let Some((at, own)) = self.anyone(false) else { return };
        let target = self.any_name(Some(own.net));
        if target == own {
            return;
        }
        let view = self.model.view(at.0);
        let is_asker_known = view.seats.get(&own).is_some_and(|seat| (seat.node, seat.port) == at);
        let is_there = view.seats.contains_key(&target)
            || view.services.contains_key(&target)
            || target.ip == self.nets[own.net].gateway;
        let out =
            self.hand_in(at, vec![(VnetHdr::default(), arp(1, MacAddr::for_ip(own.ip), own.ip, target.ip))]);
        assert!(out.datagrams.is_empty(), "a question is answered on the spot");
        let answers: Vec<_> = out.frames.iter().map(|(port, _, frame)| (*port, &frame[..])).collect();
        match answers[..] {
            [] => assert!(!is_there || !is_asker_known, "nobody told {own:?} who has {target:?}"),
            [(port, frame)] => {
                assert!(is_there && port == at.1, "{target:?} is nobody's, and was told to be someone's");
                let told = (&frame[20..22], &frame[22..28], ip_at(frame, 28), &frame[32..38]);
                let (mac, asker) = (MacAddr::for_ip(target.ip), MacAddr::for_ip(own.ip));
                assert_eq!(told, (&[0, 2][..], &mac.0[..], target.ip, &asker.0[..]));
            }
            _ => panic!("{answers:?}"),
        }
    }

    /// A forgery has no number that anybody waits for: whoever hears it has heard too much.
    fn forged(
        &mut self,
        src: Ipv4Addr,
        dst: Ipv4Addr,
        src_mac: MacAddr,
        dst_mac: MacAddr,
    ) -> Vec<(VnetHdr, Vec<u8>)> {
        self.figures.forged += 1;
        let proto = *self.rng.pick(&[Proto::Tcp, Proto::Udp, Proto::Ping]);
        let port = match proto {
            Proto::Tcp => TCP_PORT,
            Proto::Udp => UDP_PORT,
            Proto::Ping => 0,
        };
        let packet = Packet {
            proto,
            src: Socket { ip: src, port: 4000 },
            dst: Socket { ip: dst, port },
            flags: if proto == Proto::Tcp {
                *self.rng.pick(&[Flags::SYN, Flags::ACK, Flags::RST])
            } else {
                Flags::default()
            },
            seq: 1,
            ack: 1,
            options: 0,
            is_pong: false,
            payload: vec![0xff; 40],
        };
        packet.frames(src_mac, dst_mac, 1, Sending::Whole)
    }

    /// Nobody hears of it, not even the forger.
    fn nothing(&mut self, node: Node, out: Out) {
        let heard = out.frames.iter().map(|(port, _, frame)| (*port, frame)).collect::<Vec<_>>();
        assert!(
            heard.is_empty() && out.datagrams.is_empty(),
            "node {node} let a forgery through: {heard:02x?} {:02x?}",
            out.datagrams
        );
        self.settle(node, Input::Nothing, out);
    }

    fn anyone(&mut self, is_host: bool) -> Option<((Node, u32), Name)> {
        let living = self.actors.iter().filter(|(_, a)| a.life == Life::Living && a.is_host == is_host);
        let living: Vec<_> = living.map(|(at, actor)| (*at, actor.name)).collect();
        (!living.is_empty()).then(|| *self.rng.pick(&living))
    }

    /// A container's address, a service's or a gateway's, of one network or of any.
    fn any_name(&mut self, net: Option<usize>) -> Name {
        let is_it = |name: &&Name| net.is_none_or(|net| name.net == net);
        let world = self.world();
        let mut names: Vec<Name> =
            world.seats.keys().chain(world.services.keys()).filter(is_it).copied().collect();
        let gateways = self.nets.iter().enumerate().map(|(net, n)| Name { net, ip: n.gateway });
        names.extend(gateways.filter(|name| is_it(&name)));
        *self.rng.pick(&names)
    }
}

fn arp(operation: u8, sender_mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [0xff; 6].to_vec();
    frame.extend(sender_mac.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(sender_mac.0);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}
