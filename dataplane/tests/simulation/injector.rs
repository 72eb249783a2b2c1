//! [`Injector`]: somebody on the underlay who sends what they heard once more, changed or not, and what they made up. It
//! changes nothing: no port hears of it, nobody is answered, and each datagram is dropped for one counted reason.

mod forgery;

use crate::hostile::STRANGER;
use crate::judge::Input;
use crate::rng::Rng;
use crate::run::Run;
use crate::station::Out;
use crate::wire::{Datagram, Kind, Step, kind};
use crate::world::{Node, node_of, vtep};
use forgery::Forgery;
use skep_dataplane::DropReason;
use std::net::Ipv4Addr;

/// Datagrams that it remembers; later ones take the places of earlier ones.
const MEMORY: usize = 400;

/// Of a hundred sealed datagrams, how many it takes note of; of handshakes, all.
const NOTED: u64 = 20;

#[derive(Default)]
pub(crate) struct Injector(Vec<Recorded>);

#[derive(Clone)]
pub(super) struct Recorded {
    from: Node,
    datagram: Datagram,
    /// Its receiver has had it: once more it is a repetition, and not just late.
    has_arrived: bool,
}

impl Injector {
    /// Takes note of a datagram with the mark, when it leaves or when it has arrived.
    pub(crate) fn note(&mut self, from: Node, datagram: &Datagram, has_arrived: bool, rng: &mut Rng) {
        let is_noted = match kind(&datagram.bytes) {
            Kind::Plain => false,
            Kind::Handshake(_) => true,
            Kind::Session { .. } => rng.percent(NOTED),
        };
        if !is_noted {
            return;
        }
        let recorded = Recorded { from, datagram: datagram.clone(), has_arrived };
        if self.0.len() < MEMORY {
            self.0.push(recorded);
        } else {
            *rng_place(&mut self.0, rng) = recorded;
        }
    }
}

fn rng_place<'a>(memory: &'a mut [Recorded], rng: &mut Rng) -> &'a mut Recorded {
    let at = rng.below(memory.len() as u64) as usize;
    &mut memory[at]
}

impl Run {
    /// Somebody sends a datagram that no engine did, or did before.
    pub(crate) fn inject(&mut self) {
        if self.injector.0.is_empty() {
            return;
        }
        let recorded = self.rng.pick(&self.injector.0).clone();
        if let Some(forgery) = self.forgery_of(&recorded) {
            self.send_forgery(forgery);
        }
    }

    /// Somebody tries the initiations of before on a node that has just begun and remembers none.
    pub(crate) fn inject_old_initiation(&mut self, node: Node) {
        let is_it = |recorded: &&Recorded| {
            let step = kind(&recorded.datagram.bytes);
            recorded.datagram.to == node && matches!(step, Kind::Handshake(Step::Initiation { .. }))
        };
        let all: Vec<&Recorded> = self.injector.0.iter().filter(is_it).collect();
        if all.is_empty() {
            return;
        }
        let recorded = (*self.rng.pick(&all)).clone();
        if let Some(forgery) = self.repeated(&recorded) {
            self.send_forgery(forgery);
        }
    }

    fn send_forgery(&mut self, forgery: Forgery) {
        let Forgery { what, from, to, bytes, reasons, may_introduce } = forgery;
        self.tell(|| format!("injected from {from} to node {to}: {what}, {} bytes", bytes.len()));
        let before = self.stations[to - 1].engine.stats().drops;
        let out = self.hand_over(from, to, bytes);
        let after = self.stations[to - 1].engine.stats().drops;
        let counted = after.iter().zip(&before).filter(|((_, after), (_, before))| after != before);
        let counted: Vec<_> =
            counted.map(|((reason, after), (_, before))| (*reason, after - before)).collect();
        assert!(
            matches!(counted[..], [(reason, 1)] if reasons.is_empty() || reasons.contains(&reason)),
            "{what} to node {to} is dropped as {counted:?}, and should be as one of {reasons:?}"
        );
        self.check_silence(what, from, to, &out, may_introduce);
        // What it brings about in the still world is not the world's doing.
        if let Some(dropped) = self.dropped.get_mut(to - 1) {
            let of_reason = dropped.iter_mut().filter(|(reason, _)| *reason == counted[0].0);
            of_reason.for_each(|(_, count)| *count += 1);
        }
        self.figures.injected += 1;
        self.settle(to, Input::Nothing, out);
    }

    /// Nobody hears of it, and nobody answers. A node that has no session may be reminded by a recording to ask for one.
    fn check_silence(&self, what: &str, from: Ipv4Addr, to: Node, out: &Out, may_introduce: bool) {
        assert!(out.frames.is_empty(), "node {to} hands {what} on: {:02x?}", out.frames);
        assert!(out.waits.is_empty() && out.silent.is_none(), "node {to} believes {what}");
        let is_reminder = |datagram: &Datagram| {
            let is_initiation = matches!(kind(&datagram.bytes), Kind::Handshake(Step::Initiation { .. }));
            may_introduce && is_initiation && vtep(datagram.to) == from
        };
        let has_session =
            self.stations.len() >= node_of(from) && self.sessions.has_session(to, node_of(from));
        match &out.datagrams[..] {
            [] => {}
            [one] if is_reminder(one) && !has_session => {}
            answers => panic!("node {to} answers {what}: {answers:02x?}"),
        }
    }

    /// Why a datagram of a session is dropped that no engine sent so.
    pub(super) fn reason_for(&self, from: Ipv4Addr, to: Node, index: u32, counter: u64) -> DropReason {
        let node = node_of(from);
        if from == STRANGER || !self.sessions.is_peer(to, node) {
            return DropReason::SealStranger;
        }
        match self.sessions.has_come(to, node, index, counter) {
            None => DropReason::SessionUnknown,
            Some(true) => DropReason::Replayed,
            Some(false) => DropReason::SealBroken,
        }
    }
}
