//! The table does what a map with a clock does: whatever comes, it holds the same flows, and they end at the same time.

use super::*;
use crate::nat::flow::Direction;
use crate::packet::Transport;
use crate::wire::ipv4;
use crate::wire::tcp::{self, Segment};
use proptest::prelude::*;
use std::collections::BTreeMap;

const ROOM: usize = 6;

/// More flows than there is room for.
const FLOWS: u16 = 12;

#[derive(Clone, Debug)]
enum Step {
    Open(u16),
    Packet(u16, Direction, u8),
    Close(u16),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec![
        tcp::SYN,
        tcp::SYN | tcp::ACK,
        tcp::ACK,
        tcp::ACK,
        tcp::FIN | tcp::ACK,
        tcp::RST,
    ]);
    let direction = prop::sample::select(vec![Direction::Forward, Direction::Reverse]);
    let wait = prop_oneof![0u64..2_000, 2_000u64..40_000, 60_000u64..2_000_000, Just(25 * 60 * 60 * 1000)];
    prop_oneof![
        4 => (0..FLOWS).prop_map(Step::Open),
        8 => (0..FLOWS, direction, flags).prop_map(|(n, direction, flags)| Step::Packet(n, direction, flags)),
        1 => (0..FLOWS).prop_map(Step::Close),
        3 => wait.prop_map(Step::Wait),
    ]
}

/// Flow number `n`: of each protocol; the last third have the same client and service as the ones before, and came in
/// by another node.
fn flow(n: u16) -> Flow {
    let is_twin = n >= FLOWS / 3 * 2;
    let number = if is_twin { n - FLOWS / 3 } else { n };
    let tuple = Tuple {
        vni: 4097,
        protocol: [ipv4::TCP, ipv4::UDP, ipv4::TCP, ipv4::ICMP][usize::from(number % 4)],
        src: Ipv4Addr::new(10, 1, 0, 3),
        src_port: number,
        dst: Ipv4Addr::new(10, 1, 0, 2),
        dst_port: 80,
    };
    let via = is_twin.then_some(Ipv4Addr::new(192, 168, 77, 2));
    Flow { backend: Ipv4Addr::new(10, 1, 0, 4), source_port: 1000 + n, ..Flow::new(tuple, via) }
}

fn packet(protocol: u8, flags: u8) -> Transport {
    match protocol {
        ipv4::TCP => {
            let ends = Segment { src_port: 1, dst_port: 2, seq: 7, ack: 9, flags, header_len: 20, len: 1 };
            Transport::Tcp(ends)
        }
        ipv4::UDP => Transport::Udp { src_port: 1, dst_port: 2 },
        _ => Transport::Ping { id: 1 },
    }
}

#[derive(Default)]
struct Model {
    flows: BTreeMap<u16, Known>,
    now: u64,
    turns: u64,
    displaced: u64,
}

#[derive(Debug)]
struct Known {
    flow: Flow,
    phase: Phase,
    last_seen: u64,
    /// When it was last put behind the others of its phase.
    turn: u64,
}

impl Model {
    fn open(&mut self, n: u16) -> bool {
        if self.flows.len() == ROOM {
            let Some(victim) = self.victim() else { return false };
            self.flows.remove(&victim);
            self.displaced += 1;
        }
        self.turns += 1;
        let flow = flow(n);
        let known = Known { flow, phase: flow.phase(), last_seen: self.now, turn: self.turns };
        self.flows.insert(n, known);
        true
    }

    /// Who gives way in a full table: a reset one, a finished one, one that took one packet, one that is long silent.
    fn victim(&self) -> Option<u16> {
        let first = |is_it: &dyn Fn(&Known) -> bool, rank: fn(&Known) -> (u64, usize, u64)| {
            let found =
                self.flows.iter().filter(|(_, known)| is_it(known)).min_by_key(|(_, known)| rank(known));
            found.map(|(n, _)| *n)
        };
        let by_turn = |known: &Known| (known.turn, 0, 0);
        let by_silence = |known: &Known| (known.last_seen, known.phase as usize, known.turn);
        let silent_for = |known: &Known| self.now - known.last_seen;
        first(&|known| known.phase == Phase::Reset, by_turn)
            .or_else(|| first(&|known| known.phase == Phase::Finished, by_turn))
            .or_else(|| first(&|known| known.phase.is_tentative(), by_silence))
            .or_else(|| {
                first(&|known| known.phase == Phase::UdpStream && silent_for(known) >= 30_000, by_turn)
            })
            .or_else(|| {
                first(&|known| known.phase == Phase::Established && silent_for(known) >= 15 * 60_000, by_turn)
            })
    }

    fn packet(&mut self, n: u16, direction: Direction, transport: &Transport) {
        let Some(known) = self.flows.get_mut(&n) else { return };
        known.flow.advance(direction, transport);
        let phase = known.flow.phase();
        // Packets of the same second are not told apart; of lasting flows a little longer.
        let exact = match phase {
            Phase::UdpStream => 3_000,
            Phase::Established => 60_000,
            _ => 1_000,
        };
        if phase != known.phase || self.now - known.last_seen >= exact {
            self.turns += 1;
            (known.phase, known.last_seen, known.turn) = (phase, self.now, self.turns);
        }
    }

    fn wait(&mut self, time: u64) {
        self.now += time;
        self.flows.retain(|_, known| known.last_seen + known.phase.timeout() > self.now);
    }
}

proptest! {
    #[test]
    fn behaves_like_a_map_with_a_clock(steps in prop::collection::vec(step(), 1..250)) {
        let mut table = FlowTable::new(3, ROOM);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Open(n) if model.flows.contains_key(&n) => {}
                Step::Open(n) => {
                    let opened = table.insert(flow(n), model.now);
                    prop_assert_eq!(opened.is_ok(), model.open(n), "{:?}", opened);
                }
                Step::Packet(n, direction, flags) => {
                    let transport = packet(flow(n).protocol, flags);
                    if let Some(id) = table.find_reverse(&flow(n).reverse()) {
                        table.update(id, model.now, |flow| flow.advance(direction, &transport));
                    }
                    model.packet(n, direction, &transport);
                }
                Step::Close(n) => {
                    if let Some(id) = table.find_forward(&flow(n).forward(), flow(n).via()) {
                        table.remove(id);
                    }
                    model.flows.remove(&n);
                }
                Step::Wait(time) => {
                    model.wait(time);
                    table.expire(model.now);
                }
            }
            for n in 0..FLOWS {
                let known = model.flows.get(&n).map(|known| known.flow);
                let forward = table.find_forward(&flow(n).forward(), flow(n).via()).map(|id| *table.flow(id));
                let reverse = table.find_reverse(&flow(n).reverse()).map(|id| *table.flow(id));
                prop_assert_eq!((forward, reverse), (known, known), "flow {}", n);
            }
            prop_assert_eq!(table.len(), model.flows.len());
            prop_assert_eq!((0..ROOM).filter_map(|at| table.in_slot(at)).count(), model.flows.len());
            prop_assert_eq!(table.displaced(), model.displaced);
            let expiry = model.flows.values().map(|known| known.last_seen + known.phase.timeout()).min();
            prop_assert_eq!(table.next_expiry(), expiry);
        }
    }
}
