//! [`Flow`]: who talks to whom, as each side sees it, and how far they are.
//!
//! ```text
//!            as the client sees it          as the backend sees it
//! forward    client ───────▶ service        source ───────▶ backend
//! reverse    client ◀─────── service        source ◀─────── backend
//! ```
//! A VIP's flow has the VIP as its service and the client as its source. A task that picks itself has
//! the VIP as its source. A direct flow has the backend as its service. At the node of an ingress task
//! the backend is the service too, and `via` names the VTEP the client came through.

use crate::packet::Transport;
use crate::wire::ipv4::{self, Header};
use crate::wire::tcp::{self, Segment};
use std::net::Ipv4Addr;

/// One direction of a flow as it looks on the wire. ICMP echo has its identifier where the asker's
/// port would be, and zero where the answerer's would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) vni: u32,
    pub(crate) protocol: u8,
    pub(crate) src: Ipv4Addr,
    pub(crate) src_port: u16,
    pub(crate) dst: Ipv4Addr,
    pub(crate) dst_port: u16,
}

impl Tuple {
    /// `None` for what has no ports and so no flow.
    pub(crate) fn of(vni: u32, ip: &Header, transport: &Transport) -> Option<Self> {
        let (protocol, src_port, dst_port) = match *transport {
            Transport::Tcp(segment) => (ipv4::TCP, segment.src_port, segment.dst_port),
            Transport::Udp { src_port, dst_port } => (ipv4::UDP, src_port, dst_port),
            Transport::Ping { id } => (ipv4::ICMP, id, 0),
            Transport::Pong { id } => (ipv4::ICMP, 0, id),
            Transport::IcmpError | Transport::Other => return None,
        };
        Some(Self { vni, protocol, src: ip.src, src_port, dst: ip.dst, dst_port })
    }

    /// What the answer looks like.
    pub(crate) fn swapped(self) -> Self {
        Self { src: self.dst, src_port: self.dst_port, dst: self.src, dst_port: self.src_port, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Reverse,
}

/// Flat and without pointers, so that a table of them can live in memory shared with another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Flow {
    pub(crate) vni: u32,
    pub(crate) client: Ipv4Addr,
    pub(crate) service: Ipv4Addr,
    pub(crate) source: Ipv4Addr,
    pub(crate) backend: Ipv4Addr,
    /// The VTEP the client came through; unspecified where it sits on this node.
    pub(super) via: Ipv4Addr,
    pub(crate) client_port: u16,
    /// The backend's port too: services do not translate it.
    pub(crate) service_port: u16,
    pub(crate) source_port: u16,
    pub(crate) protocol: u8,
    pub(super) marks: u8,
    /// The sequence number each side will send next, as far as we saw.
    pub(super) next_forward: u32,
    pub(super) next_reverse: u32,
}

/// The backend answered.
const REPLIED: u8 = 0x01;
/// The client went on after the answer.
const ESTABLISHED: u8 = 0x02;
const FIN_FORWARD: u8 = 0x04;
const FIN_REVERSE: u8 = 0x08;
const RESET: u8 = 0x10;

/// How far a flow is, and with that how long it may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A SYN that nobody answered.
    Opening,
    /// A SYN that was answered, and not yet acknowledged.
    HalfOpen,
    Established,
    Finished,
    Reset,
    UdpAsked,
    UdpAnswered,
    /// Asked again after an answer: the client is who it says it is.
    UdpStream,
    Echo,
}

impl Phase {
    pub(crate) const ALL: [Self; 9] = [
        Self::Opening,
        Self::HalfOpen,
        Self::Established,
        Self::Finished,
        Self::Reset,
        Self::UdpAsked,
        Self::UdpAnswered,
        Self::UdpStream,
        Self::Echo,
    ];

    /// It took one packet of the client, which may be forged: it gives way when there is need.
    pub(crate) fn is_tentative(self) -> bool {
        match self {
            Self::Opening | Self::HalfOpen | Self::UdpAsked | Self::UdpAnswered | Self::Echo => true,
            Self::Established | Self::Finished | Self::Reset | Self::UdpStream => false,
        }
    }

    /// Both sides are in it.
    pub(crate) fn is_lasting(self) -> bool {
        matches!(self, Self::Established | Self::UdpStream)
    }

    /// How long a flow of this phase may be silent, in milliseconds.
    pub(crate) fn timeout(self) -> u64 {
        let seconds = match self {
            // A client that nobody answers repeats its SYN after 1, 2, 4 and 8 s (RFC 6298): the last finds another
            // backend.
            Self::Opening => 5,
            // The answer is repeated after 1, 2 and 4 s, and each time acknowledged by a client that is there.
            Self::HalfOpen => 10,
            // RFC 5382 REQ-5 asks for at least 2 hours 4 minutes.
            Self::Established => 24 * 60 * 60,
            // The longer of two sides' TIME-WAIT on Linux.
            Self::Finished => 60,
            Self::Reset => 10,
            Self::UdpAsked => 30,
            // RFC 4787 REQ-5 asks for at least 2 minutes.
            Self::UdpAnswered | Self::UdpStream => 180,
            Self::Echo => 30,
        };
        seconds * 1000
    }
}

/// The two ends of a flow as one side sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) src: Ipv4Addr,
    pub(crate) src_port: u16,
    pub(crate) dst: Ipv4Addr,
    pub(crate) dst_port: u16,
}

impl Flow {
    /// A flow that is not translated: client to service.
    pub(crate) fn new(tuple: Tuple, via: Option<Ipv4Addr>) -> Self {
        Self {
            vni: tuple.vni,
            client: tuple.src,
            service: tuple.dst,
            source: tuple.src,
            backend: tuple.dst,
            via: via.unwrap_or(Ipv4Addr::UNSPECIFIED),
            client_port: tuple.src_port,
            service_port: tuple.dst_port,
            source_port: tuple.src_port,
            protocol: tuple.protocol,
            marks: 0,
            next_forward: 0,
            next_reverse: 0,
        }
    }

    pub(crate) fn via(&self) -> Option<Ipv4Addr> {
        (!self.via.is_unspecified()).then_some(self.via)
    }

    /// Neither through a VIP nor from another node's ingress: only its reply tuple is guarded.
    pub(crate) fn is_direct(&self) -> bool {
        self.service == self.backend && self.via.is_unspecified()
    }

    /// What the client's packets look like when they come in.
    pub(crate) fn forward(&self) -> Tuple {
        Tuple {
            vni: self.vni,
            protocol: self.protocol,
            src: self.client,
            src_port: self.client_port,
            dst: self.service,
            dst_port: self.service_port,
        }
    }

    /// What the backend's packets look like when they come in.
    pub(crate) fn reverse(&self) -> Tuple {
        Tuple {
            vni: self.vni,
            protocol: self.protocol,
            src: self.backend,
            src_port: self.service_port,
            dst: self.source,
            dst_port: self.source_port,
        }
    }

    /// What a packet in `direction` has to look like when it leaves.
    pub(crate) fn translated(&self, direction: Direction) -> Ends {
        match direction {
            Direction::Forward => Ends {
                src: self.source,
                src_port: self.source_port,
                dst: self.backend,
                dst_port: self.service_port,
            },
            Direction::Reverse => Ends {
                src: self.service,
                src_port: self.service_port,
                dst: self.client,
                dst_port: self.client_port,
            },
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.protocol {
            ipv4::TCP if self.marks & RESET != 0 => Phase::Reset,
            ipv4::TCP if self.marks & (FIN_FORWARD | FIN_REVERSE) == FIN_FORWARD | FIN_REVERSE => {
                Phase::Finished
            }
            ipv4::TCP if self.marks & ESTABLISHED != 0 => Phase::Established,
            ipv4::TCP if self.marks & REPLIED != 0 => Phase::HalfOpen,
            ipv4::TCP => Phase::Opening,
            ipv4::UDP if self.marks & ESTABLISHED != 0 => Phase::UdpStream,
            ipv4::UDP if self.marks & REPLIED != 0 => Phase::UdpAnswered,
            ipv4::UDP => Phase::UdpAsked,
            _ => Phase::Echo,
        }
    }

    /// Both sides are done, so the same ports may be used for a new connection.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase(), Phase::Finished | Phase::Reset)
    }

    /// Takes note of a packet.
    pub(crate) fn advance(&mut self, direction: Direction, transport: &Transport) {
        if direction == Direction::Reverse {
            self.marks |= REPLIED;
        }
        match transport {
            Transport::Tcp(segment) => self.advance_tcp(direction, segment),
            Transport::Udp { .. } if direction == Direction::Forward && self.marks & REPLIED != 0 => {
                self.marks |= ESTABLISHED;
            }
            _ => {}
        }
    }

    fn advance_tcp(&mut self, direction: Direction, segment: &Segment) {
        let (fin, next) = match direction {
            Direction::Forward => (FIN_FORWARD, &mut self.next_forward),
            Direction::Reverse => (FIN_REVERSE, &mut self.next_reverse),
        };
        // RFC 9293 §3.4: sequence numbers compare modulo 2^32.
        let is_ahead = segment.end().wrapping_sub(*next) as i32 > 0;
        if !segment.has(tcp::RST) && (segment.has(tcp::SYN) || *next == 0 || is_ahead) {
            *next = segment.end();
        }
        if segment.has(tcp::RST) {
            self.marks |= RESET;
        }
        if segment.has(tcp::FIN) {
            self.marks |= fin;
        }
        let completes = direction == Direction::Forward && self.marks & REPLIED != 0;
        if completes && segment.has(tcp::ACK) && !segment.has(tcp::SYN) {
            self.marks |= ESTABLISHED;
        }
    }

    /// Takes a connection as established that was met in its middle.
    pub(crate) fn adopt(&mut self) {
        self.marks |= REPLIED | ESTABLISHED;
    }

    /// Sequence numbers of a reset towards the client: its own, and the one it acknowledges.
    pub(crate) fn reset_for_client(&self) -> (u32, u32) {
        (self.next_reverse, self.next_forward)
    }

    /// Sequence numbers of a reset towards the backend.
    pub(crate) fn reset_for_backend(&self) -> (u32, u32) {
        (self.next_forward, self.next_reverse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        let tuple = Tuple {
            vni: 1,
            protocol: ipv4::TCP,
            src: Ipv4Addr::new(10, 0, 0, 2),
            src_port: 40000,
            dst: Ipv4Addr::new(10, 0, 0, 9),
            dst_port: 80,
        };
        Flow::new(tuple, None)
    }

    fn segment(flags: u8) -> Transport {
        Transport::Tcp(Segment { src_port: 1, dst_port: 2, seq: 7, ack: 9, flags, header_len: 20, len: 1 })
    }

    fn after(steps: &[(Direction, u8)]) -> Phase {
        let mut flow = flow();
        for (direction, flags) in steps {
            flow.advance(*direction, &segment(*flags));
        }
        flow.phase()
    }

    use Direction::{Forward, Reverse};

    #[test]
    fn stays_half_open_until_the_client_acknowledges_the_answer() {
        assert_eq!(after(&[(Forward, tcp::SYN)]), Phase::Opening);
        assert_eq!(after(&[(Forward, tcp::SYN), (Reverse, tcp::SYN | tcp::ACK)]), Phase::HalfOpen);
        let open = [(Forward, tcp::SYN), (Reverse, tcp::SYN | tcp::ACK), (Forward, tcp::ACK)];
        assert_eq!(after(&open), Phase::Established);
    }

    #[test]
    fn one_fin_half_closes_and_two_finish() {
        let mut steps = vec![(Forward, tcp::SYN), (Reverse, tcp::SYN | tcp::ACK), (Forward, tcp::ACK)];
        steps.push((Forward, tcp::FIN | tcp::ACK));
        assert_eq!(after(&steps), Phase::Established);
        steps.push((Reverse, tcp::FIN | tcp::ACK));
        assert_eq!(after(&steps), Phase::Finished);
    }

    #[test]
    fn a_reset_ends_it_from_either_side() {
        assert_eq!(after(&[(Forward, tcp::SYN), (Reverse, tcp::RST | tcp::ACK)]), Phase::Reset);
        assert_eq!(after(&[(Forward, tcp::SYN), (Forward, tcp::RST)]), Phase::Reset);
    }

    #[test]
    fn fits_a_cache_line() {
        assert!(size_of::<Flow>() <= 64);
    }
}
