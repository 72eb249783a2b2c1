//! [`Sessions`]: who can seal for whom, by what was seen on the wire, and which frames wait until they can.
//!
//! A node uses a session it asked for from the response on, and one it was asked for from the first datagram on that came
//! in it; it opens in the one before, too. What a restarted node knew is gone. None of the runs is long enough for a
//! session to be past its time.

use crate::identity::public;
use crate::wire::{Kind, Step, Text, kind};
use crate::world::Node;
use skep_dataplane::DropReason;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Frames that wait for one peer, and for how long, in milliseconds.
const WAITING: usize = 128;
const PATIENCE: u64 = 5_000;

#[derive(Default)]
pub(crate) struct Sessions {
    /// Whom each node knows as a member.
    peers: BTreeMap<Node, BTreeSet<Node>>,
    /// By whose they are and with whom.
    ends: BTreeMap<(Node, Node), End>,
    /// Frames that waited too long, or gave way, by node, since its engine began.
    lost: BTreeMap<Node, (u64, u64)>,
}

/// One node's side of all it has with another.
#[derive(Default)]
struct End {
    /// The index in its newest initiation that was not answered.
    asked: Option<u32>,
    current: Option<Session>,
    previous: Option<Session>,
    offered: Option<Session>,
    waiting: VecDeque<Waiting>,
    /// Indices in initiations that it answered.
    answered: BTreeSet<u32>,
}

struct Session {
    ours: u32,
    theirs: u32,
    came: BTreeSet<u64>,
}

pub(crate) struct Waiting {
    pub(crate) text: Text,
    pub(crate) probes: Vec<u64>,
    since: u64,
}

/// What becomes of a datagram that nobody touched on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is plain, or was opened.
    Read,
    /// A step towards a session.
    Taken,
    /// A session begins to be used: what waited for it goes now.
    Agreed,
    Dropped(DropReason),
}

impl Sessions {
    pub(crate) fn restarted(&mut self, node: Node) {
        self.ends.retain(|(at, _), _| *at != node);
        self.lost.remove(&node);
    }

    /// A node is told who its peers are. With those that are none it has nothing any more.
    pub(crate) fn follow(&mut self, node: Node, peers: BTreeSet<Node>) {
        let over = self.ends.extract_if((node, 0)..(node + 1, 0), |(_, with), _| !peers.contains(with));
        let lost: usize = over.map(|(_, end)| end.waiting.len()).sum();
        self.lost.entry(node).or_default().0 += lost as u64;
        self.peers.insert(node, peers);
    }

    pub(crate) fn is_peer(&self, of: Node, node: Node) -> bool {
        self.peers.get(&of).is_some_and(|peers| peers.contains(&node))
    }

    /// A node sent a datagram with the mark.
    pub(crate) fn left(&mut self, node: Node, to: Node, bytes: &[u8]) {
        let is_plain = kind(bytes) == Kind::Plain;
        assert!(is_plain || self.is_peer(node, to), "node {node} seals for {to}, which is no member");
        let end = self.ends.entry((node, to)).or_default();
        match kind(bytes) {
            Kind::Plain => {}
            Kind::Session { index, .. } => {
                let theirs = end.current.as_ref().map(|session| session.theirs);
                assert_eq!(Some(index), theirs, "node {node} seals for {to} in another session than it has");
            }
            Kind::Handshake(Step::Initiation { sender }) => end.asked = Some(sender),
            Kind::Handshake(Step::Response { sender, receiver }) => {
                assert!(end.answered.insert(receiver), "node {node} answers {to}'s {receiver:08x} twice");
                // Who answers gives up asking, but for one of the two: the one with the lesser key.
                end.asked = end.asked.filter(|_| public(node) < public(to));
                end.offered = Some(Session { ours: sender, theirs: receiver, came: BTreeSet::new() });
            }
            Kind::Handshake(Step::Cookie) => {}
        }
    }

    /// A datagram arrives as it was sent.
    pub(crate) fn arrives(&mut self, node: Node, from: Node, bytes: &[u8]) -> Fate {
        if !self.is_peer(node, from) {
            return match kind(bytes) {
                Kind::Plain => Fate::Read,
                Kind::Session { .. } => Fate::Dropped(DropReason::SealStranger),
                Kind::Handshake(_) => Fate::Dropped(DropReason::HandshakeStranger),
            };
        }
        let end = self.ends.entry((node, from)).or_default();
        match kind(bytes) {
            Kind::Plain => Fate::Read,
            Kind::Session { index, counter } => end.opens(index, counter),
            Kind::Handshake(Step::Response { sender, receiver }) => {
                if end.asked != Some(receiver) {
                    return Fate::Dropped(DropReason::HandshakeUnasked);
                }
                end.asked = None;
                end.begin(Session { ours: receiver, theirs: sender, came: BTreeSet::new() });
                Fate::Agreed
            }
            Kind::Handshake(_) => Fate::Taken,
        }
    }

    pub(crate) fn has_session(&self, node: Node, with: Node) -> bool {
        self.ends.get(&(node, with)).is_some_and(|end| end.current.is_some())
    }

    /// The index in a node's newest initiation to another, if it was not answered.
    pub(crate) fn asked(&self, node: Node, of: Node) -> Option<u32> {
        self.ends.get(&(node, of))?.asked
    }

    /// Whether a counter came in a session of a node's with another; `None`: it has none with this index.
    pub(crate) fn has_come(&self, node: Node, from: Node, index: u32, counter: u64) -> Option<bool> {
        let end = self.ends.get(&(node, from))?;
        let mut sessions = [&end.current, &end.previous, &end.offered].into_iter().flatten();
        Some(sessions.find(|session| session.ours == index)?.came.contains(&counter))
    }

    /// A frame waits for a session. The oldest of too many gives way.
    pub(crate) fn wait(&mut self, node: Node, to: Node, text: Text, probes: Vec<u64>, millis: u64) {
        assert!(!self.has_session(node, to), "node {node} lets a frame wait that it could send to {to}");
        let waiting = &mut self.ends.entry((node, to)).or_default().waiting;
        if waiting.len() == WAITING {
            waiting.pop_front();
            self.lost.entry(node).or_default().1 += 1;
        }
        waiting.push_back(Waiting { text, probes, since: millis });
    }

    /// What leaves next of the frames that waited.
    pub(crate) fn next_waiting(&mut self, node: Node, to: Node) -> Option<Waiting> {
        self.ends.get_mut(&(node, to))?.waiting.pop_front()
    }

    pub(crate) fn is_anyone_kept_waiting(&self, node: Node) -> bool {
        let mut ends = self.ends.range((node, 0)..(node + 1, 0));
        ends.any(|(_, end)| end.current.is_some() && !end.waiting.is_empty())
    }

    /// Frames that waited for too long are dropped, whoever's they are.
    pub(crate) fn lose_patience(&mut self, millis: u64) {
        for ((node, _), end) in &mut self.ends {
            while end.waiting.front().is_some_and(|waiting| millis >= waiting.since + PATIENCE) {
                end.waiting.pop_front();
                self.lost.entry(*node).or_default().0 += 1;
            }
        }
    }

    /// How many frames of a node were dropped as they waited too long, and as too many waited.
    pub(crate) fn lost(&self, node: Node) -> (u64, u64) {
        self.lost.get(&node).copied().unwrap_or_default()
    }
}

impl End {
    fn opens(&mut self, index: u32, counter: u64) -> Fate {
        if let Some(mut session) = self.offered.take_if(|session| session.ours == index) {
            session.came.insert(counter);
            self.begin(session);
            return Fate::Agreed;
        }
        let mut sessions = [&mut self.current, &mut self.previous].into_iter().flatten();
        match sessions.find(|session| session.ours == index).map(|session| session.came.insert(counter)) {
            None => Fate::Dropped(DropReason::SessionUnknown),
            Some(false) => Fate::Dropped(DropReason::Replayed),
            Some(true) => Fate::Read,
        }
    }

    fn begin(&mut self, session: Session) {
        self.previous = self.current.replace(session).or(self.previous.take());
    }
}
