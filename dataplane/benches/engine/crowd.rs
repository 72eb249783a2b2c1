//! A node that outside clients come to, each with a flow of its own.

use crate::frames::Ends;
use crate::world::*;
use skep_dataplane::ids::PortId;
use skep_dataplane::seal::Suite;
use skep_dataplane::snapshot::*;
use skep_dataplane::{Engine, VnetHdr};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

/// The first client's address; the others follow.
const FIRST: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 1);

pub(crate) struct Crowd {
    pub(crate) engine: Engine,
    pub(crate) now: Instant,
}

impl Crowd {
    /// Room for `capacity` flows, and as many clients' flows as asked for, in which both sides are.
    pub(crate) fn new(capacity: usize, clients: u32) -> Self {
        let mut crowd = Self::of_nobody(capacity);
        for client in 0..clients {
            crowd.converse(client);
        }
        assert_eq!(crowd.engine.stats().flows, clients as usize);
        crowd
    }

    fn of_nobody(capacity: usize) -> Self {
        let now = Instant::now();
        let mut engine = Engine::with_flow_capacity(1, identity(HERE, Suite::default()), capacity);
        engine.apply(Arc::new(snapshot()), now, &mut Counted::default());
        Self { engine, now }
    }

    /// Asks, is answered, and asks again: then the flow is one that both sides are in.
    fn converse(&mut self, client: u32) {
        let answer = Ends { via: on_gateway(), ..Ends::new(task(HERE), 80, address(client), 40_000) };
        let mut buffer = Vec::new();
        for (port, ends) in [(HOST_PORT, asking(client)), (TASK_PORT, answer), (HOST_PORT, asking(client))] {
            ends.datagram(&mut buffer);
            self.hand_in(port, &mut buffer);
        }
    }

    fn hand_in(&mut self, port: PortId, buffer: &mut [u8]) {
        self.engine.handle_frame(port, VnetHdr::default(), buffer, self.now, &mut Counted::default());
    }
}

/// What a client sends to the VIP.
pub(crate) fn asking(client: u32) -> Ends {
    Ends { by: host(HERE), ..Ends::new(address(client), 40_000, ingress_vip(HERE), 80) }
}

fn address(client: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST.to_bits() + client)
}

fn on_gateway() -> Ipv4Addr {
    snapshot().networks[0].gateway
}

fn snapshot() -> Snapshot {
    let mut ingress = network(4096, "10.0.0.0/24", Policy::Plain);
    ingress.ingress = true;
    ingress.endpoints = vec![
        endpoint(host(HERE), Location::Local(HOST_PORT), EndpointKind::Host),
        endpoint(task(HERE), Location::Local(TASK_PORT), EndpointKind::Container),
    ];
    ingress.services = vec![service(ingress_vip(HERE), [task(HERE)])];
    Snapshot { generation: 1, networks: vec![ingress], underlay_mtu: UNDERLAY_MTU, ..Snapshot::default() }
}
