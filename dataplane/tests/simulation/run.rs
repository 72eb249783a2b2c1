//! [`Run`]: one seed's cluster, its clock and its queue of things to come.

use crate::clients::Conn;
use crate::eavesdropper::Eavesdropper;
use crate::figures::Figures;
use crate::identity::identity;
use crate::injector::Injector;
use crate::judge::Input;
use crate::model::Model;
use crate::packet::Socket;
use crate::probe::Probe;
use crate::rng::Rng;
use crate::sessions::Sessions;
use crate::station::{Out, Station};
use crate::underlay::Underlay;
use crate::wire::Datagram;
use crate::world::{Name, Net, Node, World};
use skep_dataplane::{DropReason, Engine};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How long the world is in motion, in microseconds.
pub(crate) const MOTION: u64 = 5_000_000;

/// From then on nothing is lost and nothing changes. Whoever was asked for a session in vain is asked again within a
/// second and a third, and a silent peer has answered twice half a second after that: then everybody knows the same, and
/// no packet of before is on its way.
const STILL: u64 = MOTION + 2_500_000;

/// This long before, everybody falls silent: what is still said of before may rightly be refused.
const HUSH: u64 = 200_000;

/// The end: all that was asked in the still world is answered.
const END: u64 = STILL + 3_000_000;

/// Flows an engine has room for: more than any run opens.
pub(crate) const FLOWS: usize = 4096;

pub(crate) struct Run {
    pub(crate) rng: Rng,
    /// Microseconds since the beginning.
    pub(crate) now: u64,
    base: Instant,
    queue: BinaryHeap<Reverse<(u64, u64, Queued)>>,
    serial: u64,
    pub(crate) nets: Vec<Net>,
    /// By revision, the newest last.
    pub(crate) history: Vec<World>,
    pub(crate) stations: Vec<Station>,
    pub(crate) actors: BTreeMap<(Node, u32), Actor>,
    pub(crate) conns: Vec<Conn>,
    pub(crate) probes: BTreeMap<u64, Probe>,
    /// The ends of what came out of engines.
    pub(crate) spoken: BTreeSet<(Socket, Socket)>,
    pub(crate) model: Model,
    pub(crate) sessions: Sessions,
    pub(crate) eavesdropper: Eavesdropper,
    pub(crate) injector: Injector,
    pub(crate) underlay: Underlay,
    pub(crate) next_port: u32,
    pub(crate) next_seq: u32,
    pub(crate) next_ip_id: u16,
    pub(crate) figures: Figures,
    /// What each engine had dropped when the world stood still.
    pub(crate) dropped: Vec<Vec<(DropReason, u64)>>,
    is_told: bool,
}

/// Whoever is at a port: a container, or the kernel of a node behind its `skep0`.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) name: Name,
    pub(crate) life: Life,
    pub(crate) is_host: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Until its node forwards to it.
    Waiting,
    Living,
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Queued(Event);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A datagram arrives.
    Datagram {
        from: Node,
        datagram: Datagram,
    },
    /// An assignment arrives: this revision, as a change or as a full sync.
    Assign {
        node: Node,
        revision: u64,
        is_full: bool,
    },
    /// The agent acts on what its engine says of its peers.
    Reachability {
        node: Node,
    },
    Restart {
        node: Node,
    },
    Change,
    Part,
    Heal,
    Connect,
    Forge,
    Inject,
    InjectOldInitiation {
        node: Node,
    },
    /// A client looks whether this question of its connection was answered.
    Overdue {
        conn: usize,
        question: u64,
    },
    /// A client has more to say.
    Next {
        conn: usize,
    },
    /// A server answers a question.
    Answer {
        question: u64,
        at: (Node, u32),
        from: (Ipv4Addr, u16),
        to: (Ipv4Addr, u16),
    },
    /// The pieces of a probe that arrived in time have to be all delivered.
    Assembled {
        probe: u64,
    },
    /// Nothing changes any more.
    Rest,
    /// Nobody begins to say anything.
    Hush,
    /// Everybody asks everybody.
    Matrix,
}

impl Run {
    pub(crate) fn new(seed: u64, is_told: bool) -> Self {
        let mut rng = Rng::new(seed);
        let nodes = rng.between(3, 6) as usize;
        let station = |n: usize| Station {
            engine: Engine::with_flow_capacity(seed << 8 | n as u64, identity(n, seed), FLOWS),
            revision: 0,
            generation: 0,
            silent: BTreeSet::new(),
        };
        let nets = crate::churn::nets(&mut rng);
        let mut run = Self {
            now: 0,
            base: Instant::now(),
            queue: BinaryHeap::new(),
            serial: 0,
            model: Model::new(nets.clone()),
            sessions: Sessions::default(),
            eavesdropper: Eavesdropper::default(),
            injector: Injector::default(),
            nets,
            history: vec![World::default()],
            stations: (1..=nodes).map(station).collect(),
            actors: BTreeMap::new(),
            conns: Vec::new(),
            probes: BTreeMap::new(),
            spoken: BTreeSet::new(),
            underlay: Underlay::of(&mut rng),
            next_port: 1,
            next_seq: rng.next() as u32,
            next_ip_id: rng.next() as u16,
            figures: Figures::default(),
            dropped: Vec::new(),
            is_told,
            rng,
        };
        run.found();
        run
    }

    /// Plays it to its end.
    pub(crate) fn play(mut self) -> Figures {
        for node in 1..=self.nodes() {
            self.assign(node, self.newest(), true);
        }
        self.plan();
        while let Some(next) = self.queue.peek().map(|Reverse((at, ..))| *at).filter(|at| *at < END) {
            if self.run_timer(next) {
                continue; // which may have brought something forward
            }
            if let Some(Reverse((at, _, Queued(event)))) = self.queue.pop() {
                self.now = at;
                self.happen(event);
            }
        }
        self.check_matrix();
        self.figures
    }

    pub(crate) fn nodes(&self) -> usize {
        self.stations.len()
    }

    pub(crate) fn newest(&self) -> u64 {
        self.history.len() as u64 - 1
    }

    pub(crate) fn world(&self) -> &World {
        &self.history[self.history.len() - 1]
    }

    /// Has `event` happen `after` microseconds from now.
    pub(crate) fn later(&mut self, after: u64, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse((self.now + after, self.serial, Queued(event))));
    }

    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{:>9} {}", self.now, what());
        }
    }

    /// What the world and its people will do, spread over the time of motion.
    fn plan(&mut self) {
        let some = |run: &mut Self, least: u64, most: u64, event: Event| {
            for _ in 0..run.rng.between(least, most) {
                let at = run.rng.below(MOTION);
                run.later(at, event.clone());
            }
        };
        some(self, 5, 30, Event::Change);
        some(self, 20, 60, Event::Connect);
        some(self, 5, 25, Event::Forge);
        some(self, 0, 3, Event::Part);
        for _ in 0..self.rng.between(50, 150) {
            let at = self.rng.below(END);
            self.later(at, Event::Inject);
        }
        for _ in 0..self.rng.below(3) {
            let node = self.rng.between(1, self.nodes() as u64 + 1) as Node;
            let at = self.rng.below(MOTION);
            self.later(at, Event::Restart { node });
        }
        self.later(MOTION, Event::Rest);
        self.later(STILL - HUSH, Event::Hush);
        self.later(STILL, Event::Matrix);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Datagram { from, datagram } => self.deliver(from, datagram),
            Event::Assign { node, revision, is_full } => self.assign(node, revision, is_full),
            Event::Reachability { node } => self.publish(node, false),
            Event::Restart { node } => self.restart(node),
            Event::Change => self.change(),
            Event::Part => self.part_nodes(),
            Event::Heal => self.underlay.parted.clear(),
            Event::Connect => self.connect(),
            Event::Forge => self.forge(),
            Event::Inject => self.inject(),
            Event::InjectOldInitiation { node } => self.inject_old_initiation(node),
            Event::Next { conn } => self.ask(conn),
            Event::Overdue { conn, question } => self.overdue(conn, question),
            Event::Answer { question, at, from, to } => self.answer(question, at, from, to),
            Event::Assembled { probe } => self.check_assembled(probe),
            Event::Rest => self.rest(),
            Event::Hush => self.conns.iter_mut().for_each(|conn| conn.is_over = true),
            Event::Matrix => self.ask_everybody(),
        }
    }

    /// The engine whose timer is due first, if it is by `until`, gets to run.
    fn run_timer(&mut self, until: u64) -> bool {
        let due = |(at, station): (usize, &Station)| Some((station.engine.poll_timeout()?, at));
        let Some((due, at)) = self.stations.iter().enumerate().filter_map(due).min() else { return false };
        let due = due.saturating_duration_since(self.base).as_micros() as u64;
        if due > until {
            return false;
        }
        self.now = self.now.max(due);
        let now = self.instant();
        let mut out = Out::default();
        self.stations[at].engine.handle_timeout(now, &mut out);
        self.sessions.lose_patience(self.now / 1_000);
        self.settle(at + 1, Input::Nothing, out);
        true
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    fn part_nodes(&mut self) {
        let nodes = self.nodes();
        self.underlay.part(nodes, &mut self.rng);
        self.tell(|| format!("parted {:?}", self.underlay.parted));
        let after = self.rng.between(50_000, 2_000_000);
        self.later(after, Event::Heal);
    }

    fn rest(&mut self) {
        self.underlay = Underlay::default();
        self.reunite();
        for node in 1..=self.nodes() {
            let after = self.rng.below(100_000);
            self.later(after, Event::Assign { node, revision: self.newest(), is_full: false });
        }
    }
}
