//! What the fuzzer feeds to the engine, and what has to hold whatever it feeds. `tests/corpus.rs` of the
//! engine replays the committed inputs through the same functions.
//!
//! An input is a script: steps of a few bytes each that say who sends what. Each target builds its frames as far as
//! the fuzzer would need too long to find them (addresses, checksums), and leaves the rest to it.

mod pair;
mod script;
mod world;

use pair::Pair;
use script::{Script, Step};
use world::{ENDPOINTS, Sender, World};

/// What runs one input; it panics where something doesn't hold.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("vxlan", vxlan),
    ("frame", frame),
    ("arp", arp),
    ("icmp_error", icmp_error),
    ("fragments", fragments),
    ("handshake", handshake),
    ("open", open),
];

/// Steps of one input that are looked at: enough for a conversation, few enough to be quick.
const MAX_STEPS: usize = 32;

/// Datagrams as they are, from members and strangers.
pub fn vxlan(data: &[u8]) {
    let mut world = World::new();
    for mut step in Script::new(data).steps().take(MAX_STEPS) {
        let from = step.byte();
        world.datagram(from, step.rest());
    }
}

/// Frames with any virtio header, from every kind of port.
pub fn frame(data: &[u8]) {
    let mut world = World::new();
    for mut step in Script::new(data).steps().take(MAX_STEPS) {
        let (sender, repair, vnet) = (world.sender(step.byte()), step.byte(), step.array());
        let mut frame = step.rest().to_vec();
        if repair & 1 == 1 {
            sender.sign(&mut frame);
        }
        if repair & 2 == 2 {
            world::sum_header(&mut frame);
        }
        world.send(sender, vnet, &frame);
    }
}

/// ARP of every kind, from a port and from a VTEP.
pub fn arp(data: &[u8]) {
    let mut world = World::new();
    for mut step in Script::new(data).steps().take(MAX_STEPS) {
        let (sender, way, to) = (world.sender(step.byte()), step.byte(), step.array::<6>());
        let mut frame = to.to_vec();
        frame.extend(sender.mac());
        frame.extend([0x08, 0x06]);
        // RFC 826: Ethernet and IPv4, and who asks, unless the fuzzer wants to say that too.
        if way & 2 == 0 {
            frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
            frame.extend(sender.mac());
            frame.extend(sender.ip().octets());
        }
        frame.extend(step.rest());
        world.pass(sender, way, &frame);
    }
}

/// ICMP errors that quote packets of flows there are, or nearly.
pub fn icmp_error(data: &[u8]) {
    let mut world = World::new();
    world.converse();
    for mut step in Script::new(data).steps().take(MAX_STEPS) {
        let (sender, way, to) = (world.sender(step.byte()), step.byte(), step.byte());
        let (kind, code, word) = (step.byte(), step.byte(), step.array::<4>());
        let (quoted_from, quoted_to, protocol) = (step.byte(), step.byte(), step.byte());
        let mut quoted = world::ipv4(
            ENDPOINTS[usize::from(quoted_from) % ENDPOINTS.len()],
            ENDPOINTS[usize::from(quoted_to) % ENDPOINTS.len()],
            protocol,
            0,
            step.rest(),
        );
        quoted.truncate(600);
        let mut body = vec![kind, code, 0, 0];
        body.extend(word);
        body.extend(quoted);
        let sum = world::checksum(&body);
        body[2..4].copy_from_slice(&sum.to_be_bytes());
        let to = ENDPOINTS[usize::from(to) % ENDPOINTS.len()];
        let frame = sender.ethernet(to, &world::ipv4(sender.ip(), to, 1, 0, &body));
        world.pass(sender, way, &frame);
    }
}

/// Pieces of datagrams in any order, with time between them.
pub fn fragments(data: &[u8]) {
    let mut world = World::new();
    for mut step in Script::new(data).steps().take(MAX_STEPS) {
        let (sender, way, to) = (world.sender(step.byte()), step.byte(), step.byte());
        let (flags, id, pause) = (u16::from_be_bytes(step.array()), step.byte(), step.byte());
        let to = ENDPOINTS[usize::from(to) % ENDPOINTS.len()];
        let mut packet = world::ipv4(sender.ip(), to, 17, flags, step.rest());
        packet[5] = id % 4;
        let mut frame = sender.ethernet(to, &packet);
        world::sum_header(&mut frame);
        world.pass(sender, way, &frame);
        world.wait(u64::from(pause) * 200);
    }
}

/// Steps towards a session with a peer that restarts, over a wire that loses, repeats and changes: its messages, theirs
/// with other bytes, and what is none of theirs.
pub fn handshake(data: &[u8]) {
    let mut pair = Pair::new();
    for mut step in Script::new(data).steps().take(MAX_STEPS) {
        match step.byte() % 8 {
            0 => pair.arrive_from(step.byte(), step.rest()),
            1 => {
                let (who, message) = (step.byte(), message(&mut step));
                pair.arrive_from(who, &message);
            }
            2 => pair.wait(u64::from(step.byte()) * 20),
            3 => pair.reach_nth(step.byte()),
            4 => pair.exchange(),
            5 => pair.restart_peer(),
            _ => repeat(&mut pair, &mut step),
        }
    }
}

/// Datagrams of a session: the peer's, in any order and number, theirs with other bytes, and what is none of theirs.
pub fn open(data: &[u8]) {
    let mut pair = Pair::in_session();
    for mut step in Script::new(data).steps().take(MAX_STEPS) {
        match step.byte() % 8 {
            0 => pair.arrive_from(step.byte(), step.rest()),
            1 | 2 => pair.seal(step.rest()),
            3 => {
                pair.wait(u64::from(step.byte()) * 500);
                pair.exchange();
            }
            4 => pair.wait(u64::from(step.byte()) * 20),
            _ => repeat(&mut pair, &mut step),
        }
    }
}

/// A message of a handshake with its header and in its length.
fn message(step: &mut Step<'_>) -> Vec<u8> {
    let kind = step.byte() % 3;
    let mut message = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, kind + 1, 0, 0, 0];
    message.extend(step.rest());
    message.resize([180, 120, 76][usize::from(kind)], 0);
    message
}

/// Something the peer sent, from it or another, and as it was, with another byte, another length or another header.
fn repeat(pair: &mut Pair, step: &mut Step<'_>) {
    let (who, nth, how) = (step.byte(), step.byte(), step.byte());
    let Some(mut datagram) = pair.recorded(nth) else { return };
    match how % 5 {
        1 => {
            let at = usize::from(u16::from_be_bytes(step.array())) % datagram.len();
            datagram[at] ^= step.byte().max(1);
        }
        2 => datagram.truncate(usize::from(u16::from_be_bytes(step.array())) % datagram.len()),
        3 => datagram.extend(step.rest()),
        4 => {
            let (at, bytes) = (usize::from(step.byte()) % 24, step.rest());
            let place = datagram.iter_mut().skip(at).zip(bytes);
            place.for_each(|(place, byte)| *place = *byte);
        }
        _ => {}
    }
    pair.arrive_from(who, &datagram);
}

/// How a frame gets to the engine: straight from its port, or wrapped by the sender's node.
fn is_wrapped(way: u8) -> bool {
    way & 1 == 1
}

impl World {
    fn pass(&mut self, sender: Sender, way: u8, frame: &[u8]) {
        if is_wrapped(way) { self.wrapped(sender, frame) } else { self.send(sender, [0; 10], frame) }
    }
}
