//! [`Nat`]: flows through VIPs and ingress, both ways.

pub(crate) mod flow;
pub(crate) mod fragments;
pub(crate) mod icmp_error;
pub(crate) mod rewrite;

mod balance;
mod coverage;
mod owners;
mod queue;
mod sweep;
mod table;

use crate::hash::scramble;
use crate::index::{NetworkIndex, ServiceIndex};
use crate::packet::{Packet, Transport};
use crate::snapshot::L4;
use crate::verdict::DropReason;
use crate::wire::ipv4;
use balance::Pointers;
use flow::{Direction, Flow, Phase, Tuple};
use fragments::Fragments;
use icmp_error::Quoted;
use std::net::Ipv4Addr;
use sweep::Sweep;
pub(crate) use table::CAPACITY as FLOW_CAPACITY;
use table::{FlowId, FlowTable, NoRoom};

/// Ports tried for a client whose own would make the reply ambiguous. They are spread over 64,512, so
/// that this many are all taken only where nearly every port is.
const PORT_ATTEMPTS: u64 = 64;

/// Below are ports that servers listen on.
const FIRST_CLIENT_PORT: u16 = 1024;

pub(crate) struct Nat {
    seed: u64,
    flows: FlowTable,
    pointers: Pointers,
    pub(crate) fragments: Fragments,
    /// Under way since the last snapshot, until every flow was looked at.
    sweep: Option<Sweep>,
    /// TCP connections that a snapshot left without an end. Their ends have to be told.
    ended: Vec<Flow>,
    /// When it was found that there is more to do than is done at once.
    backlog: Option<u64>,
}

impl Nat {
    pub(crate) fn new(seed: u64, flow_capacity: usize) -> Self {
        Self {
            seed,
            flows: FlowTable::new(seed, flow_capacity),
            pointers: Pointers::new(seed),
            fragments: Fragments::new(seed),
            sweep: None,
            ended: Vec::with_capacity(sweep::ENDED_PER_TURN),
            backlog: None,
        }
    }

    pub(crate) fn flow_count(&self) -> usize {
        self.flows.len()
    }

    pub(crate) fn flows_displaced(&self) -> u64 {
        self.flows.displaced()
    }

    pub(crate) fn flow_capacity(&self) -> usize {
        self.flows.capacity()
    }

    /// Client to VIP: to the flow's backend, or for a new flow to the one whose turn it is.
    pub(crate) fn balance(
        &mut self,
        network: &NetworkIndex,
        service: &ServiceIndex,
        packet: &mut Packet<'_>,
        transport: &Transport,
        now: u64,
    ) -> Result<(), DropReason> {
        let vni = network.vni.as_u32();
        let tuple = Tuple::of(vni, &packet.ip, transport).ok_or(DropReason::UnsupportedProtocol)?;
        if let Some(id) = self.continued(&tuple, None, transport) {
            self.pass(id, Direction::Forward, packet, transport, now);
            return Ok(());
        }
        match transport {
            Transport::Tcp(segment) if !segment.opens() => return Err(DropReason::NoFlow),
            Transport::Pong { .. } => return Err(DropReason::NoFlow),
            _ => {}
        }
        let is_foreign_ping =
            published_port(&tuple).is_none() && service.names_ports() && !network.subnet.contains(&tuple.src);
        if is_foreign_ping || !service.is_open(published_port(&tuple)) {
            return Err(DropReason::PortClosed);
        }
        let backend = self.pointers.candidate(service).ok_or(DropReason::NoBackend)?;
        let mut flow = Flow { backend, ..Flow::new(tuple, None) };
        if backend == flow.client {
            // A kernel takes no packet from its own address off the wire.
            flow.source = service.vip;
        }
        let id = self.open(flow, now)?;
        self.pointers.advance(service);
        self.pass(id, Direction::Forward, packet, transport, now);
        Ok(())
    }

    /// A backend's packet that answers a flow. `None`: it does not; `Some`: the VTEP the client is behind.
    pub(crate) fn reply(
        &mut self,
        network: &NetworkIndex,
        packet: &mut Packet<'_>,
        transport: &Transport,
        now: u64,
    ) -> Option<Option<Ipv4Addr>> {
        if matches!(transport, Transport::Ping { .. }) {
            return None;
        }
        let tuple = Tuple::of(network.vni.as_u32(), &packet.ip, transport)?;
        let id = self.find_reverse(&tuple)?;
        let via = self.flows.flow(id).via();
        self.pass(id, Direction::Reverse, packet, transport, now);
        Some(via)
    }

    /// From a port of this node straight to a backend: noted, so that no flow through a VIP gets the
    /// same reply tuple; the later of the two gets another client port. A connection met in its middle
    /// stays unnoted, and so does one for which there is no room.
    pub(crate) fn direct(
        &mut self,
        network: &NetworkIndex,
        packet: &mut Packet<'_>,
        transport: &Transport,
        now: u64,
    ) -> Result<(), DropReason> {
        let Some(tuple) = Tuple::of(network.vni.as_u32(), &packet.ip, transport) else { return Ok(()) };
        if let Some(id) = self.continued(&tuple, None, transport) {
            self.pass(id, Direction::Forward, packet, transport, now);
            return Ok(());
        }
        let opens = match transport {
            Transport::Tcp(segment) => segment.opens(),
            Transport::Udp { .. } | Transport::Ping { .. } => true,
            Transport::Pong { .. } | Transport::IcmpError | Transport::Other => false,
        };
        let is_taken = self.find_reverse(&tuple.swapped()).is_some();
        if !opens || !is_taken && !self.flows.has_room_for_direct() {
            return Ok(());
        }
        let id = self.open(Flow::new(tuple, None), now)?;
        self.pass(id, Direction::Forward, packet, transport, now);
        Ok(())
    }

    /// At the node of an ingress task, from the node `via` that the client came in by: notes the way
    /// back. The backend is chosen already, so a connection met in its middle is taken over.
    pub(crate) fn admit(
        &mut self,
        network: &NetworkIndex,
        via: Ipv4Addr,
        packet: &mut Packet<'_>,
        transport: &Transport,
        now: u64,
    ) -> Result<(), DropReason> {
        let vni = network.vni.as_u32();
        let tuple = Tuple::of(vni, &packet.ip, transport).ok_or(DropReason::UnsupportedProtocol)?;
        let port = published_port(&tuple).ok_or(DropReason::PortClosed)?;
        if !network.services_of(tuple.dst).any(|service| service.is_open(Some(port))) {
            return Err(DropReason::PortClosed);
        }
        let id = match self.continued(&tuple, Some(via), transport) {
            Some(id) => id,
            None => {
                let mut flow = Flow::new(tuple, Some(via));
                if matches!(transport, Transport::Tcp(segment) if !segment.opens()) {
                    flow.adopt();
                }
                self.open(flow, now)?
            }
        };
        self.pass(id, Direction::Forward, packet, transport, now);
        Ok(())
    }

    /// An ICMP error on its way to a flow's client. `None`: it is about no flow.
    pub(crate) fn error_to_client(
        &mut self,
        network: &NetworkIndex,
        packet: &mut Packet<'_>,
        quoted: &Quoted,
    ) -> Option<Option<Ipv4Addr>> {
        let answer = quoted.tuple(network.vni.as_u32()).swapped();
        let id = self.find_reverse(&answer)?;
        let flow = self.flows.flow(id);
        quoted.translate(packet, flow, Direction::Reverse);
        Some(flow.via())
    }

    /// An ICMP error on its way to a flow's backend, from a client behind `via`. Whether there is one.
    pub(crate) fn error_to_backend(
        &mut self,
        network: &NetworkIndex,
        via: Option<Ipv4Addr>,
        packet: &mut Packet<'_>,
        quoted: &Quoted,
    ) -> bool {
        let question = quoted.tuple(network.vni.as_u32()).swapped();
        let Some(id) = self.find_forward(&question, via) else { return false };
        quoted.translate(packet, self.flows.flow(id), Direction::Forward);
        true
    }

    /// In milliseconds.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        // What is left over is due since its turn, and no longer: nobody takes it for a timer that came late.
        let flows = self.backlog.or_else(|| self.flows.next_expiry());
        let expiries = [flows, self.fragments.next_expiry()];
        expiries.into_iter().flatten().min()
    }

    /// The flow a client's packet goes on with. A SYN where the last connection is over begins anew.
    fn continued(&mut self, tuple: &Tuple, via: Option<Ipv4Addr>, transport: &Transport) -> Option<FlowId> {
        let id = self.find_forward(tuple, via)?;
        let reopens = matches!(transport, Transport::Tcp(segment) if segment.opens());
        if reopens && self.flows.flow(id).is_over() {
            self.flows.remove(id);
            return None;
        }
        Some(id)
    }

    fn open(&mut self, mut flow: Flow, now: u64) -> Result<FlowId, DropReason> {
        // Nobody remembers a connection that was reset. One that was finished stays in TIME-WAIT, where a
        // kernel takes a new one only from the same client's clock: what came another way is another's.
        if let Some(holder) = self.find_reverse(&flow.reverse())
            && self.flows.flow(holder).phase() == Phase::Reset
        {
            self.flows.remove(holder);
        }
        flow.source_port = self.free_port(&flow).ok_or(DropReason::ClientPortsExhausted)?;
        self.flows.insert(flow, now).map_err(|reason| match reason {
            NoRoom::Full => DropReason::FlowTableFull,
            NoRoom::Share => DropReason::FlowShare,
        })
    }

    /// The client's own port, or another one where the reply could not be told from another flow's.
    fn free_port(&mut self, flow: &Flow) -> Option<u16> {
        let seed = self.seed;
        let is_free = |port: &u16| {
            let answer = Flow { source_port: *port, ..*flow }.reverse();
            // Neither another flow's answer, nor what the backend itself asks this client.
            self.find_reverse(&answer).is_none() && self.find_forward(&answer, None).is_none()
        };
        let span = u64::from(u16::MAX - FIRST_CLIENT_PORT) + 1;
        let name = u64::from(flow.client.to_bits()) << 16 | u64::from(flow.client_port);
        let other = |nth| FIRST_CLIENT_PORT + (scramble(seed ^ nth, name) % span) as u16;
        std::iter::once(flow.client_port).chain((1..=PORT_ATTEMPTS).map(other)).find(is_free)
    }

    fn pass(
        &mut self,
        id: FlowId,
        direction: Direction,
        packet: &mut Packet<'_>,
        transport: &Transport,
        now: u64,
    ) {
        self.flows.update(id, now, |flow| flow.advance(direction, transport));
        let ends = self.flows.flow(id).translated(direction);
        rewrite::rewrite(packet, transport, ends);
    }
}

/// What a service publishes; `None` for a ping.
fn published_port(tuple: &Tuple) -> Option<(L4, u16)> {
    match tuple.protocol {
        ipv4::TCP => Some((L4::Tcp, tuple.dst_port)),
        ipv4::UDP => Some((L4::Udp, tuple.dst_port)),
        _ => None,
    }
}
