//! Clients and servers: what containers and outside machines say to each other.

use crate::packet::{Flags, Proto, Socket};
use crate::run::{Event, Life, Run};
use crate::world::{Name, Node};
use skep_dataplane::DropReason;
use std::net::Ipv4Addr;

/// Ports of services; those of clients are elsewhere, so that no answer looks like a question.
pub(crate) const TCP_PORT: u16 = 80;
pub(crate) const UDP_PORT: u16 = 53;
const CLOSED_PORT: u16 = 9999;

/// Few, so that clients meet their own ports again, towards others and after others.
const CLIENT_PORTS: (u64, u64) = (4000, 4010);

pub(crate) const OUTSIDE: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 168, 77, 200), Ipv4Addr::new(192, 168, 77, 201), Ipv4Addr::new(203, 0, 113, 9)];

/// A question is asked again after this, in microseconds, at most this often.
const PATIENCE: u64 = 200_000;
const TRIES: u32 = 4;

#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) net: usize,
    pub(crate) proto: Proto,
    pub(crate) client: Socket,
    pub(crate) actor: (Node, u32),
    pub(crate) target: Socket,
    steps: Vec<Step>,
    at: usize,
    tries: u32,
    /// The question that waits for its answer.
    asked: Option<u64>,
    pub(crate) is_over: bool,
    /// Each step was answered.
    pub(crate) is_done: bool,
    /// Part of the still world, where nothing goes wrong.
    pub(crate) is_still: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    Say,
    Close,
    Reset,
}

impl Run {
    /// Somebody asks somebody.
    pub(crate) fn connect(&mut self) {
        if self.rng.percent(25) && self.rival() {
            return;
        }
        let living: Vec<_> =
            self.actors.iter().filter(|(_, a)| a.life == Life::Living).map(|(at, _)| *at).collect();
        if living.is_empty() {
            return;
        }
        let mut actor = *self.rng.pick(&living);
        if self.nets[self.actors[&actor].name.net].ingress && !self.actors[&actor].is_host {
            // The ingress network leads in from hosts; its tasks may ask nobody there, and mostly do not.
            actor = *self.rng.pick(&living);
        }
        let Name { net, ip } = self.actors[&actor].name;
        let is_host = self.actors[&actor].is_host;
        let world =
            &self.history[self.rng.between(self.newest().saturating_sub(2), self.newest() + 1) as usize];
        let vips = world.services.keys().filter(|name| name.net == net).map(|name| name.ip);
        let seats = world.seats.keys().filter(|name| name.net == net && name.ip != ip).map(|name| name.ip);
        // Virtual addresses are asked as often as all others together.
        let vips: Vec<_> = vips.collect();
        let seats: Vec<_> = seats.collect();
        let targets = if is_host || self.rng.percent(60) { vips } else { seats };
        if targets.is_empty() {
            return;
        }
        let target = *self.rng.pick(&targets);
        let proto = *self.rng.pick(&[Proto::Tcp, Proto::Tcp, Proto::Udp, Proto::Udp, Proto::Ping]);
        let proto = if is_host && proto == Proto::Ping { Proto::Tcp } else { proto };
        let client = if is_host && self.rng.percent(85) { *self.rng.pick(&OUTSIDE) } else { ip };
        let is_closed = self.rng.percent(5);
        self.open(actor, net, proto, client, target, is_closed, false);
    }

    /// A client uses the port of a conversation it has for another one, whose answers would look the same: the task
    /// behind the service directly, the service of the task, or the same service through another node.
    fn rival(&mut self) -> bool {
        let open: Vec<Conn> = self.conns.iter().filter(|conn| !conn.is_over).cloned().collect();
        if open.is_empty() {
            return false;
        }
        let conn = self.rng.pick(&open).clone();
        let Conn { net, proto, client, mut actor, mut target, .. } = conn;
        if self.actors[&actor].is_host {
            let hosts = self.actors.iter().filter(|(_, other)| other.is_host && other.life == Life::Living);
            let hosts: Vec<_> = hosts.map(|(at, _)| *at).collect();
            actor = *self.rng.pick(&hosts);
            // A node's own address is nobody else's.
            if self.actors[&actor].name.ip != client.ip && !OUTSIDE.contains(&client.ip) {
                return false;
            }
        } else {
            let services = self.world().services.iter().filter(|(name, _)| name.net == net);
            let services: Vec<_> =
                services.map(|(name, service)| (name.ip, service.backends.clone())).collect();
            let backends =
                services.iter().filter(|(vip, _)| *vip == target.ip).flat_map(|(_, backends)| backends);
            let has_it = |backends: &[(Ipv4Addr, bool)]| backends.iter().any(|(ip, _)| *ip == target.ip);
            let behind = services.iter().filter(|(_, backends)| has_it(backends)).map(|(vip, _)| *vip);
            let rivals: Vec<_> =
                backends.map(|(ip, _)| *ip).chain(behind).filter(|ip| *ip != client.ip).collect();
            if rivals.is_empty() {
                return false;
            }
            target.ip = *self.rng.pick(&rivals);
        }
        let is_same = |conn: &Conn| {
            (conn.net, conn.proto, conn.client, conn.target, conn.actor)
                == (net, proto, client, target, actor)
        };
        if self.conns.iter().any(|conn| is_same(conn) && !conn.is_over)
            || !self.model.is_certain(net, proto, client, self.now)
        {
            return false;
        }
        self.begin(actor, net, proto, client, target, false);
        true
    }

    /// In the still world everybody asks everybody they may.
    pub(crate) fn ask_everybody(&mut self) {
        self.dropped = self.drops_of_all();
        let actors: Vec<_> = self.actors.iter().filter(|(_, a)| a.life == Life::Living).collect();
        let actors: Vec<_> = actors.into_iter().map(|(at, a)| (*at, a.clone())).collect();
        let world = self.world().clone();
        for (at, actor) in actors {
            let Name { net, ip } = actor.name;
            // The ingress network leads in from hosts; its tasks ask nobody there.
            if self.nets[net].ingress && !actor.is_host {
                continue;
            }
            let seats =
                world.seats.iter().filter(|(name, seat)| name.net == net && name.ip != ip && !seat.is_host);
            let seats: Vec<_> = seats.map(|(name, _)| name.ip).filter(|_| !actor.is_host).collect();
            let vips = world.services.iter().filter(|(name, _)| name.net == net);
            let has_backend = |ip: &Ipv4Addr| world.seats.contains_key(&Name { net, ip: *ip });
            let vips =
                vips.filter(|(_, s)| s.backends.iter().any(|(ip, draining)| !draining && has_backend(ip)));
            let targets: Vec<_> = seats.into_iter().chain(vips.map(|(name, _)| name.ip)).collect();
            for target in targets {
                let protos: &[Proto] = if actor.is_host {
                    &[Proto::Tcp, Proto::Udp]
                } else {
                    &[Proto::Tcp, Proto::Udp, Proto::Ping]
                };
                let proto = *self.rng.pick(protos);
                let client = if actor.is_host { *self.rng.pick(&OUTSIDE) } else { ip };
                self.open(at, net, proto, client, target, false, true);
                self.figures.matrix += 1;
            }
        }
    }

    fn drops_of_all(&self) -> Vec<Vec<(DropReason, u64)>> {
        self.stations.iter().map(|station| station.engine.stats().drops).collect()
    }

    pub(crate) fn check_matrix(&self) {
        for (nth, conn) in self.conns.iter().enumerate().filter(|(_, conn)| conn.is_still) {
            assert!(conn.is_done, "in the still world, conversation {nth} was not completed: {conn:?}");
        }
        assert_eq!(self.drops_of_all(), self.dropped, "in the still world, something was dropped");
        for (node, station) in (1..).zip(&self.stations) {
            let stats = station.engine.stats();
            let lost = (stats.dropped(DropReason::NoSession), stats.dropped(DropReason::BridgeFull));
            assert_eq!(
                lost,
                self.sessions.lost(node),
                "node {node} lost others than those that waited too long"
            );
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a conversation is that much")]
    fn open(
        &mut self,
        actor: (Node, u32),
        net: usize,
        proto: Proto,
        client: Ipv4Addr,
        target: Ipv4Addr,
        is_closed: bool,
        is_still: bool,
    ) {
        let port = match proto {
            Proto::Ping => 0,
            _ if is_closed => CLOSED_PORT,
            Proto::Tcp => TCP_PORT,
            Proto::Udp => UDP_PORT,
        };
        let target = Socket { ip: target, port };
        let Some(port) = self.client_port(net, proto, client, target, is_still) else { return };
        self.begin(actor, net, proto, Socket { ip: client, port }, target, is_still);
    }

    fn begin(
        &mut self,
        actor: (Node, u32),
        net: usize,
        proto: Proto,
        client: Socket,
        target: Socket,
        is_still: bool,
    ) {
        let steps = self.steps(proto, is_still);
        self.conns.push(Conn {
            net,
            proto,
            client,
            actor,
            target,
            steps,
            at: 0,
            tries: 0,
            asked: None,
            is_over: false,
            is_done: false,
            is_still,
        });
        self.ask(self.conns.len() - 1);
    }

    /// A port no conversation of this client with this target still uses.
    fn client_port(
        &mut self,
        net: usize,
        proto: Proto,
        client: Ipv4Addr,
        target: Socket,
        is_still: bool,
    ) -> Option<u16> {
        // The still world's clients have no past to mistake.
        let (from, to) = if is_still { (20_000, 60_000) } else { CLIENT_PORTS };
        (0..8).find_map(|_| {
            let port = self.rng.between(from, to) as u16;
            let client = Socket { ip: client, port };
            let is_same = |conn: &Conn| {
                (conn.net, conn.proto, conn.client, conn.target) == (net, proto, client, target)
            };
            let is_busy = self.conns.iter().any(|conn| is_same(conn) && !conn.is_over);
            (!is_busy && self.model.is_certain(net, proto, client, self.now)).then_some(port)
        })
    }

    fn steps(&mut self, proto: Proto, is_still: bool) -> Vec<Step> {
        let words = self.rng.between(1, if is_still { 3 } else { 8 }) as usize;
        let mut steps = vec![Step::Say; words];
        if proto == Proto::Tcp {
            steps.insert(0, Step::Open);
            match self.rng.below(4) {
                0 if !is_still => steps.push(Step::Reset),
                1 if !is_still => {}
                _ => steps.push(Step::Close),
            }
        }
        steps
    }

    /// Says the next thing of a conversation.
    pub(crate) fn ask(&mut self, at: usize) {
        let conn = self.conns[at].clone();
        if conn.is_over {
            return;
        }
        if self.actors[&conn.actor].life != Life::Living {
            self.conns[at].is_over = true;
            return;
        }
        let Some(step) = conn.steps.get(conn.at) else {
            self.conns[at].is_over = true;
            self.conns[at].is_done = true;
            return;
        };
        let flags = match step {
            _ if conn.proto != Proto::Tcp => Flags::default(),
            Step::Open => Flags::SYN,
            Step::Say => Flags::PSH | Flags::ACK,
            Step::Close => Flags::FIN | Flags::ACK,
            Step::Reset => Flags::RST | Flags::ACK,
        };
        let id = self.say(conn.actor, at, None, (conn.client, conn.target), flags, *step == Step::Say);
        if *step == Step::Reset {
            self.conns[at].is_over = true;
            return;
        }
        self.conns[at].asked = Some(id);
        self.later(PATIENCE, Event::Overdue { conn: at, question: id });
    }

    pub(crate) fn overdue(&mut self, at: usize, question: u64) {
        let conn = &mut self.conns[at];
        if conn.asked != Some(question) || conn.is_over {
            return;
        }
        conn.tries += 1;
        conn.is_over = conn.tries == TRIES;
        self.ask(at);
    }

    /// A client heard the answer to a question.
    pub(crate) fn heard_answer(&mut self, at: usize, question: u64, flags: Flags) {
        let conn = &mut self.conns[at];
        if conn.asked != Some(question) || conn.is_over {
            return;
        }
        if flags.has(Flags::RST) {
            conn.is_over = true;
            return;
        }
        conn.asked = None;
        conn.at += 1;
        conn.tries = 0;
        let is_last = conn.at == conn.steps.len();
        if is_last {
            self.ask(at);
        } else {
            let after = self.rng.below(100_000);
            self.later(after, Event::Next { conn: at });
        }
    }

    /// A server answers what it was asked, to whom it saw asking.
    pub(crate) fn answer(&mut self, id: u64, at: (Node, u32), from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) {
        if self.actors[&at].life != Life::Living {
            return;
        }
        let question = &self.probes[&id];
        let (conn, asked) = (question.conn, question.packet.flags);
        let is_tcp = question.packet.proto == Proto::Tcp;
        let is_still = self.conns[conn].is_still;
        let flags = match asked {
            _ if !is_tcp => Flags::default(),
            asked if asked.opens() => Flags::SYN | Flags::ACK,
            asked if asked.has(Flags::FIN) => Flags::FIN | Flags::ACK,
            _ if !is_still && self.rng.percent(3) => Flags::RST | Flags::ACK,
            _ => Flags::PSH | Flags::ACK,
        };
        let ends = (Socket { ip: from.0, port: from.1 }, Socket { ip: to.0, port: to.1 });
        let is_long = !is_tcp || flags.has(Flags::PSH);
        self.say(at, conn, Some(id), ends, flags, is_long);
    }
}
