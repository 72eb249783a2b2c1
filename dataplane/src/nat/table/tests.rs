use super::*;
use crate::nat::flow::Direction;
use crate::packet::Transport;
use crate::wire::ipv4;
use crate::wire::tcp::{self, Segment};

fn tuple(n: u16, protocol: u8) -> Tuple {
    Tuple {
        vni: 4097,
        protocol,
        src: Ipv4Addr::new(10, 1, 0, 3),
        src_port: n,
        dst: Ipv4Addr::new(10, 1, 0, 2),
        dst_port: 80,
    }
}

fn balanced(n: u16, protocol: u8) -> Flow {
    Flow { backend: Ipv4Addr::new(10, 1, 0, 4), ..Flow::new(tuple(n, protocol), None) }
}

fn tcp(flags: u8) -> Transport {
    Transport::Tcp(Segment { src_port: 1, dst_port: 2, seq: 7, ack: 9, flags, header_len: 20, len: 1 })
}

#[test]
fn a_slot_and_its_buckets_take_what_the_capacity_says() {
    let buckets = 2 * BUCKETS_PER_SLOT * size_of::<u32>();
    assert_eq!(size_of::<Slot>() + size_of::<Places>() + buckets, 96);
}

fn established(table: &mut FlowTable, n: u16, now: u64) -> Result<FlowId, NoRoom> {
    let id = table.insert(balanced(n, ipv4::TCP), now)?;
    table.update(id, now, Flow::adopt);
    Ok(id)
}

fn has(table: &FlowTable, n: u16) -> bool {
    table.find_forward(&tuple(n, ipv4::TCP), None).is_some()
}

#[test]
fn a_full_table_refuses_while_every_flow_lives() {
    let mut table = FlowTable::new(1, 4);
    for n in 0..4 {
        established(&mut table, n, 0).unwrap();
    }
    assert_eq!(table.insert(balanced(9, ipv4::TCP), 0), Err(NoRoom::Full));
    assert_eq!((table.len(), table.displaced()), (4, 0));
}

#[test]
fn what_is_over_gives_way_before_what_is_tentative_before_what_is_silent() {
    let mut table = FlowTable::new(1, 3);
    established(&mut table, 1, 0).unwrap();
    table.insert(balanced(2, ipv4::TCP), 0).unwrap();
    let over = table.insert(balanced(3, ipv4::TCP), 5).unwrap();
    table.update(over, 5, |flow| flow.advance(Direction::Reverse, &tcp(tcp::RST)));
    established(&mut table, 4, 6).unwrap();
    assert_eq!([1, 2, 3, 4].map(|n| has(&table, n)), [true, true, false, true]);
    established(&mut table, 5, 7).unwrap();
    assert_eq!([1, 2, 4, 5].map(|n| has(&table, n)), [true, false, true, true]);
    let quarter = 15 * 60 * 1000;
    assert_eq!(table.insert(balanced(6, ipv4::TCP), quarter - 1), Err(NoRoom::Full));
    table.insert(balanced(6, ipv4::TCP), quarter).unwrap();
    assert!(!has(&table, 1) && has(&table, 4));
    assert_eq!(table.displaced(), 3);
}

#[test]
fn a_tentative_flow_gives_way_by_its_silence_whatever_its_phase() {
    let mut table = FlowTable::new(1, 2);
    let answered = table.insert(balanced(1, ipv4::TCP), 0).unwrap();
    table.insert(balanced(2, ipv4::TCP), 1).unwrap();
    table.update(answered, 2, |flow| flow.advance(Direction::Reverse, &tcp(tcp::SYN | tcp::ACK)));
    table.insert(balanced(3, ipv4::TCP), 3).unwrap();
    assert_eq!([1, 2, 3].map(|n| has(&table, n)), [true, false, true]);
}

#[test]
fn an_owner_takes_as_much_of_the_table_as_it_leaves() {
    const ROOM: usize = 9000;
    let mut table = FlowTable::new(1, ROOM);
    let of = |client: u8, n: u16| Flow {
        client: Ipv4Addr::new(10, 1, 0, client),
        source: Ipv4Addr::new(10, 1, 0, client),
        ..balanced(n, ipv4::TCP)
    };
    let mut take = |client, until: u16| {
        let mut taken = 0;
        for n in 0..until {
            match table.insert(of(client, n), 0) {
                Ok(id) => table.update(id, 0, Flow::adopt),
                Err(reason) => {
                    assert_eq!(reason, NoRoom::Share);
                    break;
                }
            }
            taken += 1;
        }
        taken
    };
    assert_eq!(take(20, u16::MAX), ROOM / 2);
    assert_eq!(take(21, u16::MAX), ROOM / 4);
    assert_eq!(take(22, 300), 300);
}

#[test]
fn an_owners_oldest_tentative_flow_gives_way_to_its_newest() {
    const ROOM: usize = 10_000;
    let mut table = FlowTable::new(1, ROOM);
    for n in 0..20_000 {
        table.insert(balanced(n, ipv4::TCP), u64::from(n)).unwrap();
    }
    assert_eq!(table.len(), ROOM / 5, "a quarter of what is left");
    assert!(!has(&table, 17_999) && has(&table, 18_000) && has(&table, 19_999));
    assert_eq!(table.displaced(), 18_000);
    while table.expire(19_999 + Phase::Opening.timeout()) {}
    assert_eq!((table.len(), table.next_expiry()), (0, None));
}

#[test]
fn what_is_over_takes_up_nobodys_part() {
    const ROOM: usize = 10_000;
    let mut table = FlowTable::new(1, ROOM);
    for n in 0..ROOM as u16 {
        let id = table.insert(balanced(n, ipv4::TCP), 0).unwrap();
        table.update(id, 0, |flow| flow.advance(Direction::Reverse, &tcp(tcp::RST)));
    }
    for n in 20_000..21_000 {
        table.insert(balanced(n, ipv4::TCP), 1).unwrap();
    }
    assert!((20_000..21_000).all(|n| has(&table, n)));
    assert_eq!(table.len(), ROOM);
}

/// What a lookup costs is the length of its chain; the ports are as regular as a flood makes them.
#[test]
fn no_chain_of_a_full_table_is_long() {
    let mut table = FlowTable::new(1, CAPACITY);
    for nth in 0..CAPACITY {
        let mut flow = balanced((nth % 60_000) as u16, ipv4::TCP);
        (flow.client, flow.service_port) = (Ipv4Addr::from_bits(nth as u32 % 500), (nth / 60_000) as u16);
        table.insert(flow, 0).unwrap();
    }
    let longest = |heads: &[u32], next: fn(&Slot) -> u32| {
        let length = |head: &u32| {
            let slot = |at: u32| (at != NONE).then_some(at);
            std::iter::successors(slot(*head), |at| slot(next(&table.slots[*at as usize]))).count()
        };
        heads.iter().map(length).max()
    };
    assert!(longest(&table.forward, |slot| slot.next_forward) <= Some(12));
    assert!(longest(&table.reverse, |slot| slot.next_reverse) <= Some(12));
    assert!(table.len() > CAPACITY / 10 * 9, "{} flows", table.len());
}
