//! [`Station`]: a node's engine, and its agent: it makes snapshots of the revisions that reach it and carries out what
//! the engine says.

use crate::identity::identity;
use crate::judge::Input;
use crate::run::{Event, FLOWS, Life, Run};
use crate::sessions::Fate;
use crate::wire::{Datagram, Kind, Nonce, Text, kind};
use crate::world::{Node, node_of, vtep};
use skep_dataplane::ids::PortId;
use skep_dataplane::seal::Plaintext;
use skep_dataplane::{DropReason, Engine, HEADROOM, Output, VnetHdr};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A node: its engine and its agent.
pub(crate) struct Station {
    pub(crate) engine: Engine,
    pub(crate) revision: u64,
    pub(crate) generation: u64,
    /// Peers that do not answer its path probes.
    pub(crate) silent: BTreeSet<Node>,
}

/// What an engine gave out during one call.
#[derive(Default)]
pub(crate) struct Out {
    pub(crate) frames: Vec<(u32, VnetHdr, Vec<u8>)>,
    pub(crate) datagrams: Vec<Datagram>,
    /// Frames that wait for a session, and with whom.
    pub(crate) waits: Vec<(Node, Text)>,
    sealed: Option<(Nonce, Text)>,
    pub(crate) silent: Option<BTreeSet<Node>>,
}

impl Output for Out {
    fn frame(&mut self, port: PortId, vnet: VnetHdr, frame: &[u8]) {
        self.frames.push((port.0, vnet, frame.to_vec()));
    }

    fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]) {
        let (bytes, sealed) = (datagram.to_vec(), self.sealed.take());
        self.datagrams.push(Datagram { to: node_of(to), bytes, sealed, probes: Vec::new() });
    }

    /// As long as what was sent before it, as far as that was longer.
    fn padded(&self, to: Ipv4Addr, len: usize) -> usize {
        let last = self.datagrams.last().filter(|last| last.to == node_of(to));
        last.map_or(len, |last| last.bytes.len().max(len))
    }

    fn sealed(&mut self, key: [u8; 16], counter: u64, says: Plaintext<'_>) {
        assert!(self.sealed.is_none(), "sealed, and not sent");
        self.sealed = Some(((key, counter), Text::of(says)));
    }

    fn waits(&mut self, to: Ipv4Addr, says: Plaintext<'_>) {
        self.waits.push((node_of(to), Text::of(says)));
    }

    fn reachability(&mut self, silent: &[Ipv4Addr]) {
        self.silent = Some(silent.iter().map(|vtep| node_of(*vtep)).collect());
    }
}

impl Run {
    /// A revision reaches a node. One that is older than what it has changes nothing.
    pub(crate) fn assign(&mut self, node: Node, revision: u64, is_full: bool) {
        let station = &mut self.stations[node - 1];
        if revision < station.revision || revision == station.revision && !is_full {
            return;
        }
        let is_gap = revision > station.revision + 1;
        station.revision = revision;
        self.publish(node, is_full || is_gap);
    }

    /// The agent of a node makes a snapshot of what it knows.
    pub(crate) fn publish(&mut self, node: Node, is_full: bool) {
        let station = &self.stations[node - 1];
        let view = self.history[station.revision as usize].without(&station.silent);
        // A full sync skips what was published in between.
        let generation = station.generation + if is_full { 5 } else { 1 };
        let snapshot = Arc::new(view.project(&self.nets, node, self.nodes(), generation));
        self.tell(|| {
            format!(
                "node {node}: revision {} full {is_full} {:?}",
                view.revision,
                self.stations[node - 1].silent
            )
        });
        for (at, actor) in self.actors.range_mut((node, 0)..(node + 1, 0)) {
            let seat = view.seats.get(&actor.name);
            let is_here = seat.is_some_and(|seat| (seat.node, seat.port) == *at);
            actor.life = match actor.life {
                Life::Waiting if is_here => Life::Living,
                Life::Living if !is_here => Life::Over,
                life => life,
            };
        }
        self.sessions.follow(node, view.peers(node, self.nodes()));
        self.model.applied(node, view);
        let now = self.instant();
        let mut out = Out::default();
        let station = &mut self.stations[node - 1];
        station.generation = generation;
        station.engine.apply(snapshot, now, &mut out);
        self.settle(node, Input::Nothing, out);
    }

    pub(crate) fn restart(&mut self, node: Node) {
        self.tell(|| format!("node {node}: engine begins anew"));
        self.figures.restarts += 1;
        let seed = self.rng.next();
        let station = &mut self.stations[node - 1];
        station.engine = Engine::with_flow_capacity(seed, identity(node, seed), FLOWS);
        station.silent.clear();
        self.model.restarted(node);
        self.sessions.restarted(node);
        for _ in 0..4 {
            let after = self.rng.below(400_000);
            self.later(after, Event::InjectOldInitiation { node });
        }
        self.publish(node, true);
    }

    /// A port's owner hands a frame to its engine.
    pub(crate) fn hand_in(&mut self, (node, port): (Node, u32), frames: Vec<(VnetHdr, Vec<u8>)>) -> Out {
        let now = self.instant();
        let mut out = Out::default();
        for (vnet, frame) in frames {
            let mut buf = vec![0; HEADROOM];
            buf.extend(frame);
            self.stations[node - 1].engine.handle_frame(PortId(port), vnet, &mut buf, now, &mut out);
        }
        out
    }

    /// A datagram arrives at a node.
    pub(crate) fn hand_over(&mut self, from: Ipv4Addr, to: Node, mut bytes: Vec<u8>) -> Out {
        let now = self.instant();
        let mut out = Out::default();
        self.stations[to - 1].engine.handle_datagram(from, &mut bytes, now, &mut out);
        out
    }

    /// Carries out what an engine said.
    pub(crate) fn settle(&mut self, node: Node, input: Input, mut out: Out) {
        if let Some(silent) = out.silent.take() {
            self.figures.silences += silent.len() as u64;
            self.stations[node - 1].silent = silent;
            self.later(5_000, Event::Reachability { node });
        }
        let probes = input.probes();
        self.judge(node, input, &mut out);
        for datagram in out.datagrams {
            self.emit(node, datagram);
        }
        for (port, vnet, frame) in out.frames {
            self.receive((node, port), vnet, &frame, &probes);
        }
    }

    fn emit(&mut self, from: Node, datagram: Datagram) {
        self.eavesdropper.hear(&datagram).unwrap_or_else(|heard| panic!("{heard}: {datagram:02x?}"));
        if let Kind::Handshake(step) = kind(&datagram.bytes) {
            self.tell(|| format!("node {from} to {}: {step:x?}", datagram.to));
        }
        self.injector.note(from, &datagram, false, &mut self.rng);
        let copies = self.underlay.copies(from, datagram.to, &mut self.rng);
        // Of a sealed one, its receiver takes one copy.
        if copies.len() > 1 && datagram.sealed.is_none() {
            for id in &datagram.probes {
                self.probes.get_mut(id).unwrap().was_doubled = true;
            }
        }
        for after in copies {
            self.later(after, Event::Datagram { from, datagram: datagram.clone() });
        }
    }

    /// Why a datagram goes no further than into the switch, if that is for its network or session to say.
    fn refusal(&self, to: Node, from: Node, datagram: &Datagram, fate: Fate) -> Option<DropReason> {
        if let Fate::Dropped(reason) = fate {
            return Some(reason);
        }
        let inner = datagram.inner()?;
        let net = self.nets.iter().position(|net| net.vni == inner.vni)?;
        let view = self.model.view(to);
        match (view.is_on(to, net), view.is_on(from, net)) {
            (false, _) => Some(DropReason::UnknownVni),
            (true, false) => Some(DropReason::UnknownVtep),
            (true, true) => None,
        }
    }

    pub(crate) fn deliver(&mut self, from: Node, datagram: Datagram) {
        let to = datagram.to;
        let fate = self.sessions.arrives(to, from, &datagram.bytes);
        let expected = self.refusal(to, from, &datagram, fate);
        let count = |run: &Self| expected.map(|reason| run.stations[to - 1].engine.stats().dropped(reason));
        let before = count(self);
        let out = self.hand_over(vtep(from), to, datagram.bytes.clone());
        let dropped = count(self).zip(before).map(|(after, before)| after - before);
        assert_eq!(dropped, expected.map(|_| 1), "node {to} drops what {from} sent as {expected:?}");
        self.figures.replayed += u64::from(expected == Some(DropReason::Replayed));
        self.injector.note(from, &datagram, true, &mut self.rng);
        self.settle(to, Input::Datagram { from, datagram, fate }, out);
    }
}
