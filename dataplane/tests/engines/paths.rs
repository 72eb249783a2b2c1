//! Path probes between engines whose datagrams take time, get lost, or meet a node that gets no CPU.

use crate::identity::identity;
use crate::sim::{peer, vtep};
use skep_dataplane::ids::PortId;
use skep_dataplane::snapshot::Snapshot;
use skep_dataplane::{DropReason, Engine, Output, PathStats, VnetHdr};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECOND: u64 = 1000;

/// Whether a datagram that node `from` sends to node `to`, at a time in milliseconds, is lost.
type Loss = Box<dyn FnMut(usize, usize, u64) -> bool>;

/// What happens where nodes meet for the first time: one hears of the other a little later, and neither has shown the
/// other yet that it is there.
const GREETINGS: [DropReason; 2] = [DropReason::HandshakeStranger, DropReason::HandshakeStale];

struct World {
    epoch: Instant,
    now: u64,
    engines: Vec<Engine>,
    /// On their way: by arrival and number, the sender, receiver and bytes.
    flying: BTreeMap<(u64, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    /// Of those on their way, what was sent because of what arrived.
    replies: BTreeSet<(u64, u64)>,
    /// One way, in milliseconds.
    delay: u64,
    loss: Loss,
    /// Until when a node gets no CPU; what arrives waits in its socket.
    starved_until: Vec<u64>,
    /// What each node said: when, and who was silent.
    said: Vec<Vec<(u64, Vec<usize>)>>,
}

#[derive(Default)]
struct Collected {
    datagrams: Vec<(Ipv4Addr, Vec<u8>)>,
    said: Vec<Vec<Ipv4Addr>>,
}

impl Output for Collected {
    fn frame(&mut self, _: PortId, _: VnetHdr, _: &[u8]) {}

    fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]) {
        self.datagrams.push((to, datagram.to_vec()));
    }

    fn reachability(&mut self, silent: &[Ipv4Addr]) {
        self.said.push(silent.to_vec());
    }
}

fn number(vtep: Ipv4Addr) -> usize {
    usize::from(vtep.octets()[3])
}

fn snapshot(peers: &[usize]) -> Arc<Snapshot> {
    Arc::new(Snapshot { peers: peers.iter().map(|n| peer(*n)).collect(), ..Snapshot::default() })
}

impl World {
    /// `nodes` that watch each other, on an underlay that loses nothing.
    fn new(nodes: usize) -> Self {
        let mut world = Self {
            epoch: Instant::now(),
            now: 0,
            engines: (0..nodes).map(|n| Engine::new(n as u64, identity(n + 1, 0))).collect(),
            flying: BTreeMap::new(),
            sent: 0,
            replies: BTreeSet::new(),
            delay: 1,
            loss: Box::new(|_, _, _| false),
            starved_until: vec![0; nodes],
            said: vec![Vec::new(); nodes],
        };
        for node in 1..=nodes {
            let peers: Vec<_> = (1..=nodes).filter(|peer| *peer != node).collect();
            world.act(node, |engine, now, out| engine.apply(snapshot(&peers), now, out));
        }
        world
    }

    fn losing(mut self, loss: impl FnMut(usize, usize, u64) -> bool + 'static) -> Self {
        self.loss = Box::new(loss);
        self
    }

    fn instant(&self, at: u64) -> Instant {
        self.epoch + Duration::from_millis(at)
    }

    fn act(&mut self, node: usize, act: impl FnOnce(&mut Engine, Instant, &mut Collected)) {
        let mut out = Collected::default();
        let now = self.instant(self.now);
        act(&mut self.engines[node - 1], now, &mut out);
        let said = out.said.into_iter().map(|set| (self.now, set.into_iter().map(number).collect()));
        self.said[node - 1].extend(said);
        for (to, datagram) in out.datagrams {
            let to = number(to);
            if to <= self.engines.len() && !(self.loss)(node, to, self.now) {
                self.sent += 1;
                self.flying.insert((self.now + self.delay, self.sent), (node, to, datagram));
            }
        }
    }

    fn receive(&mut self, from: usize, to: usize, mut datagram: Vec<u8>) {
        let before = self.sent;
        self.act(to, |engine, now, out| engine.handle_datagram(vtep(from), &mut datagram, now, out));
        self.replies.extend((before + 1..=self.sent).map(|number| (self.now + self.delay, number)));
    }

    /// When a node wants its timer and gets the CPU for it.
    fn timer(&self, node: usize) -> Option<u64> {
        let wanted = self.engines[node - 1].poll_timeout()?.saturating_duration_since(self.epoch);
        Some((wanted.as_millis() as u64).max(self.starved_until[node - 1]))
    }

    /// When the next datagram can be read: by (time, number).
    fn arrival(&self) -> Option<((u64, u64), u64)> {
        let read = |(key, (_, to, _)): (&(u64, u64), &(usize, usize, Vec<u8>))| {
            (*key, key.0.max(self.starved_until[*to - 1]))
        };
        self.flying.iter().map(read).min_by_key(|(key, at)| (*at, *key))
    }

    /// Runs to the time `until`. At equal times the socket is read before the timer.
    fn run(&mut self, until: u64) {
        loop {
            let timers = (1..=self.engines.len()).filter_map(|node| Some((self.timer(node)?, node)));
            let timer = timers.min();
            let arrival = self.arrival();
            let first = [timer.map(|(at, _)| at), arrival.map(|(_, at)| at)].into_iter().flatten().min();
            let Some(first) = first.filter(|first| *first <= until) else { break };
            self.now = self.now.max(first);
            match (arrival, timer) {
                (Some((key, at)), _) if at <= first => {
                    let (from, to, datagram) = self.flying.remove(&key).unwrap();
                    self.receive(from, to, datagram);
                }
                (_, Some((_, node))) => self.act(node, |engine, now, out| engine.handle_timeout(now, out)),
                (_, None) => break,
            }
        }
        self.now = until;
    }

    fn starve(&mut self, node: usize, time: u64) {
        self.starved_until[node - 1] = self.now + time;
    }

    fn silent(&self, node: usize) -> Vec<usize> {
        self.said[node - 1].last().map(|(_, silent)| silent.clone()).unwrap_or_default()
    }

    fn path(&self, node: usize, peer: usize) -> PathStats {
        let paths = self.engines[node - 1].stats().paths;
        paths.into_iter().find(|path| path.peer == vtep(peer)).unwrap()
    }

    fn dropped(&self, node: usize, reason: DropReason) -> u64 {
        self.engines[node - 1].stats().dropped(reason)
    }

    /// What was dropped for other reasons than these.
    fn dropped_otherwise(&self, reasons: &[DropReason]) -> Vec<(DropReason, u64)> {
        let all = self.engines.iter().flat_map(|engine| engine.stats().drops);
        all.filter(|(reason, count)| *count > 0 && !reasons.contains(reason)).collect()
    }

    /// How often a node took a peer for silent.
    fn shunned(&self) -> usize {
        self.said.iter().flatten().filter(|(_, silent)| !silent.is_empty()).count()
    }
}

/// Numbers without pattern, for losses; xorshift64*.
fn dice(seed: u64) -> impl FnMut(u64) -> bool {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |percent| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 100 < percent
    }
}

#[test]
fn peers_that_answer_are_asked_four_times_a_second_and_nothing_is_said() {
    let mut world = World::new(3);
    world.run(60 * SECOND);
    assert_eq!(world.said, vec![Vec::new(); 3]);
    let path = world.path(1, 2);
    assert!((4 * 59..=4 * 60).contains(&path.answered) && path.asked <= path.answered + 1, "{path:?}");
    assert!(!path.silent);
    assert!(world.instant(world.now) - path.last_heard.unwrap() <= Duration::from_millis(252));
    assert!(world.dropped_otherwise(&GREETINGS).is_empty());
}

#[test]
fn a_dead_peer_is_silent_within_a_second_and_back_within_one_whatever_the_phase() {
    for phase in (0..250).step_by(3) {
        let (fault, repair) = (10 * SECOND + phase, 20 * SECOND + 7 * phase % 250);
        let is_dead = move |at| (fault..repair).contains(&at);
        let mut world = World::new(3).losing(move |from, to, at| (from == 2 || to == 2) && is_dead(at));
        world.run(30 * SECOND);
        for node in [1, 3] {
            let [(gone, ref silent), (back, ref nobody)] = world.said[node - 1][..] else {
                panic!("phase {phase}: {:?}", world.said)
            };
            assert_eq!((silent, nobody), (&vec![2], &vec![]));
            assert!(
                (fault + 650..=fault + SECOND).contains(&gone),
                "phase {phase}: silent after {}",
                gone - fault
            );
            assert!(
                (repair..=repair + SECOND).contains(&back),
                "phase {phase}: back after {}",
                back - repair
            );
        }
    }
}

#[test]
fn a_way_that_is_open_in_one_direction_only_is_closed_for_both() {
    for (lost_from, lost_to) in [(1, 2), (2, 1)] {
        let mut world =
            World::new(3).losing(move |from, to, at| at >= 10 * SECOND && (from, to) == (lost_from, lost_to));
        world.run(11 * SECOND);
        assert_eq!([world.silent(1), world.silent(2), world.silent(3)], [vec![2], vec![1], vec![]]);
    }
}

#[test]
fn a_blip_of_five_seconds_is_one_silence() {
    let mut world = World::new(2).losing(|_, _, at| (10 * SECOND..15 * SECOND).contains(&at));
    world.run(60 * SECOND);
    for said in &world.said {
        assert_eq!(said.iter().map(|(_, silent)| silent.len()).collect::<Vec<_>>(), [1, 0]);
    }
}

#[test]
fn a_few_lost_answers_in_a_row_are_no_silence() {
    for (lost, shunned) in [(1, 0), (2, 0), (3, 0), (8, 0), (13, 0), (16, 1)] {
        let mut world = World::new(2);
        world.run(10 * SECOND);
        for _ in 0..lost {
            let answers = |world: &World| {
                let mut flying = world.flying.iter();
                flying
                    .find(|(key, (from, ..))| *from == 2 && world.replies.contains(key))
                    .map(|(key, _)| *key)
            };
            while answers(&world).is_none() {
                world.run(world.now + 1);
            }
            world.flying.remove(&answers(&world).unwrap());
        }
        world.run(20 * SECOND);
        assert_eq!(world.shunned(), shunned, "{lost} lost");
    }
}

/// The rate of false alarms is the loss of a round trip to the power of the questions asked in the limit.
#[test]
fn random_loss_is_no_silence() {
    let mut alarms = Vec::new();
    for (percent, seed) in [(5, 1), (10, 2), (10, 3), (20, 4), (40, 5)] {
        let mut is_lost = dice(seed);
        let mut world = World::new(2).losing(move |_, _, _| is_lost(percent));
        world.run(1200 * SECOND);
        let returned = world.said.iter().map(Vec::len).sum::<usize>() - world.shunned();
        assert!(returned + 2 >= world.shunned(), "every silence ends");
        alarms.push((percent, world.shunned()));
    }
    println!("false alarms of two nodes in 20 minutes, by percent lost each way: {alarms:?}");
    for (percent, count) in alarms {
        assert!(percent > 20 || count == 0, "{count} false alarms at {percent} % loss each way");
    }
}

#[test]
fn a_long_way_is_no_silence() {
    let mut world = World::new(2);
    world.delay = 300;
    world.run(60 * SECOND);
    assert_eq!(world.shunned(), 0);
    assert!(world.path(1, 2).asked < 60 * 20, "asked again while the answer is on its way, within bounds");
}

#[test]
fn a_node_that_got_no_cpu_blames_nobody() {
    for time in [100, 250, 600, 949, 951, 1500, 5000] {
        for phase in (0..250).step_by(30) {
            let mut world = World::new(3);
            world.run(10 * SECOND + phase);
            world.starve(1, time);
            world.run(30 * SECOND);
            assert_eq!(world.said[0], [], "starved for {time} ms");
            assert_eq!([world.silent(2), world.silent(3)], [vec![], vec![]], "it is back for the others");
            if time < 700 {
                assert_eq!(world.shunned(), 0, "and short of the limit nobody minded");
            }
        }
    }
}

#[test]
fn nodes_that_get_a_tenth_of_a_cpu_blame_nobody() {
    let mut world = World::new(3);
    let mut until = 0;
    while until < 60 * SECOND {
        until += 10;
        world.run(until);
        (1..=3).for_each(|node| world.starve(node, 90));
        until += 90;
        world.run(until);
    }
    assert_eq!(world.shunned(), 0);
    assert!(world.path(1, 2).answered > 60);
}

#[test]
fn a_starved_node_still_finds_the_dead_and_a_recovered_one_finds_them_in_time() {
    let mut world = World::new(2).losing(|_, _, at| at >= 10 * SECOND);
    for at in (9 * SECOND..14 * SECOND).step_by(500) {
        world.run(at);
        world.starve(1, 400);
    }
    world.run(25 * SECOND);
    assert_eq!(world.silent(1), [2], "{:?}", world.said);

    let mut world = World::new(2).losing(|_, _, at| at >= 20 * SECOND);
    for at in (9 * SECOND..14 * SECOND).step_by(500) {
        world.run(at);
        world.starve(1, 400);
    }
    world.run(21 * SECOND);
    assert_eq!(world.silent(1), [2], "six good seconds make up for five bad ones");
}

/// The sealed question or answer that is in the air from one node to another.
fn overheard(world: &World, from: usize, to: usize) -> Vec<u8> {
    let found = world.flying.values().find(|(f, t, _)| (*f, *t) == (from, to));
    found.map(|(_, _, datagram)| datagram.clone()).unwrap()
}

#[test]
fn forged_and_repeated_answers_count_for_nothing() {
    let mut world = World::new(3);
    world.run(2 * SECOND + 1);
    let answered = world.path(1, 2).answered;
    let answer = overheard(&world, 2, 1);
    let mut wrong = answer.clone();
    wrong[30] ^= 1;
    world.receive(2, 1, wrong);
    assert_eq!(world.dropped(1, DropReason::SealBroken), 1);
    world.receive(3, 1, answer.clone());
    assert_eq!(world.dropped(1, DropReason::SessionUnknown), 1, "a session is with one peer");
    world.receive(9, 1, answer.clone());
    assert_eq!(world.dropped(1, DropReason::SealStranger), 1);
    assert_eq!(world.path(1, 2).answered, answered, "none of them counts");
    world.receive(2, 1, answer.clone());
    assert_eq!(world.path(1, 2).answered, answered + 1);

    let mut world = world.losing(|from, to, _| (from, to) == (2, 1));
    world.flying.clear();
    for at in (2 * SECOND..=3 * SECOND).step_by(100) {
        world.run(at + 2);
        world.receive(2, 1, answer.clone());
    }
    assert_eq!(world.dropped(1, DropReason::Replayed), 11, "a datagram is good for once");
    world.run(3 * SECOND + 100);
    assert_eq!(world.silent(1), [2], "repeating an old answer keeps nobody alive");
}

/// Nodes hear of each other when they do: the first to know is not a stranger to the other for it.
#[test]
fn a_peer_that_hears_of_this_node_a_little_later_is_not_asked_before() {
    for later in [1, 100, 500, 900] {
        let mut world = World::new(3);
        world.act(2, |engine, now, out| engine.apply(snapshot(&[3]), now, out));
        world.run(later);
        world.act(2, |engine, now, out| engine.apply(snapshot(&[1, 3]), now, out));
        world.run(10 * SECOND);
        assert_eq!(world.dropped_otherwise(&GREETINGS), [], "{later} ms");
        assert_eq!(world.shunned(), 0);
    }
    // One that never answers is found out all the same.
    let mut world = World::new(2).losing(|from, _, _| from == 2);
    world.run(2 * SECOND);
    assert_eq!(world.silent(1), [2]);
}

#[test]
fn a_clock_that_stands_still_asks_nobody_twice() {
    let mut world = World::new(2);
    world.run(SECOND);
    let asked = world.path(1, 2).asked;
    for _ in 0..100 {
        world.act(1, |engine, now, out| engine.handle_timeout(now, out));
    }
    assert_eq!(world.path(1, 2).asked, asked);
    let next = world.engines[0].poll_timeout().unwrap();
    assert!(next > world.instant(world.now));
    let earlier = world.epoch - Duration::from_secs(5);
    world.act(1, |engine, _, out| engine.handle_timeout(earlier, out));
    assert_eq!(world.path(1, 2).asked, asked);
}

#[test]
fn what_is_known_of_a_peer_outlives_a_snapshot() {
    let mut world = World::new(3).losing(|from, to, at| at >= SECOND && (from == 2 || to == 2));
    world.run(5 * SECOND);
    assert_eq!(world.silent(1), [2]);
    let before = world.path(1, 3);
    // In any order, and named twice.
    world.act(1, |engine, now, out| engine.apply(snapshot(&[3, 2, 3]), now, out));
    assert_eq!((world.said[0].len(), world.path(1, 2).silent), (1, true), "nothing new to say");
    assert_eq!(world.path(1, 3), before);
    world.act(1, |engine, now, out| engine.apply(snapshot(&[3]), now, out));
    assert_eq!(world.said[0].last().unwrap().1, Vec::<usize>::new(), "who is no peer is not silent");
    world.act(1, |engine, now, out| engine.apply(snapshot(&[2, 3]), now, out));
    assert!(!world.path(1, 2).silent, "who is listed anew is not prejudged");
    world.run(7 * SECOND);
    assert_eq!(world.silent(1), [2]);
    world.act(1, |engine, now, out| engine.apply(snapshot(&[]), now, out));
    assert_eq!(world.engines[0].poll_timeout(), None);
}
