//! Forgeries by the hundred thousand, of every class there is, while sessions are renewed and nodes begin anew: none is
//! heard, none is answered, and each has its own reason. `SKEP_FORGERIES=10000000` sends that many.

use crate::world::*;
use skep_dataplane::DropReason::{self, *};
use skep_dataplane::VnetHdr;
use skep_dataplane::ids::{MacAddr, PortId};
use skep_dataplane::snapshot::{Endpoint, EndpointKind, Location, Network, Policy};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What `cargo xtask test` sends each time.
const FORGERIES: u64 = 300_000;

/// Of each class in a round, and how much time a round takes, in milliseconds.
const IN_A_ROUND: u64 = 100;
const ROUND: u64 = 100;
/// Handshakes that know the node's key: as many as are no load in a round.
const SIGNED_IN_A_ROUND: u64 = 12;
/// A node begins anew after so many rounds.
const LIFE: u64 = 60;

/// Node 2 is told lies by everybody: by node 1's address, by node 3, which is a member that was taken over, and by
/// strangers.
const VICTIM: usize = 2;
const LIAR: usize = 3;
/// A peer without a container on the networks, which believes to have one.
const OUTSIDER: usize = 4;
const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// A network that the liar takes for sealed, and the others for plain.
const MIXED_UP: u32 = PLAIN_VNI;

type Dice = Box<dyn FnMut(u64) -> u64>;
type Reasons = &'static [DropReason];

/// What is known of the cluster by who has listened to it for a while.
struct Recorded {
    /// Datagrams to the victim: of node 1's session, that were delivered, and the newest of it, that was not.
    replays: Vec<Vec<u8>>,
    caught: Vec<u8>,
    /// Of sessions that are over, and of lives.
    bygone: Vec<Vec<u8>>,
    initiations: Vec<Vec<u8>>,
}

struct Forger {
    world: World,
    dice: Dice,
    recorded: Recorded,
    counts: BTreeMap<&'static str, (u64, BTreeMap<DropReason, u64>)>,
}

fn plain(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), frame].concat()
}

fn frame() -> Vec<u8> {
    udp(container(1), container(VICTIM), b"a marker nobody may hear")
}

/// The liar claims a container of node 1's, and an address that nobody has, and takes a plain network for a sealed one.
fn lie(node: usize, network: &mut Network) {
    let liars = |ip, mac, port| Endpoint {
        ip,
        mac,
        location: Location::Local(PortId(port)),
        kind: EndpointKind::Container,
    };
    if node == OUTSIDER && network.vni.as_u32() == VNI {
        network.endpoints.push(liars(container(OUTSIDER), MacAddr::for_ip(container(OUTSIDER)), PORT.0));
    }
    if node != LIAR {
        return;
    }
    if network.vni.as_u32() == MIXED_UP {
        network.policy = Policy::Sealed;
    }
    if network.vni.as_u32() == VNI {
        network.endpoints.retain(|endpoint| endpoint.ip != container(1));
        network.endpoints.push(liars(container(1), MacAddr::for_ip(container(1)), 7));
        // Its own MAC, and an address nobody has.
        network.endpoints.retain(|endpoint| endpoint.ip != container(LIAR));
        network.endpoints.push(liars(Ipv4Addr::new(10, 1, 0, 99), MacAddr::for_ip(container(LIAR)), 8));
    }
}

impl Forger {
    fn new() -> Self {
        let mut world = World::unborn(4);
        world.shape = Box::new(lie);
        world.members = vec![1, VICTIM, LIAR];
        (1..=4).for_each(|node| world.start(node));
        world.run(3 * SECOND);
        let recorded =
            Recorded { replays: Vec::new(), caught: Vec::new(), bygone: Vec::new(), initiations: Vec::new() };
        Self { world, dice: Box::new(dice(99)), recorded, counts: BTreeMap::new() }
    }

    /// Listens again: sessions come and go.
    fn listen(&mut self) {
        let world = &mut self.world;
        world.wire.clear();
        for n in 0..40u8 {
            world.say(1, VICTIM, &[n; 60]);
        }
        world.run_for(10);
        self.recorded.bygone.append(&mut self.recorded.replays);
        self.recorded.bygone.truncate(4_000);
        // Those that have arrived: what is still in the air may come for the first time.
        let now = world.now;
        world.wire.retain(|(at, ..)| at + world.delay < now);
        self.recorded.replays = world.sealed_on_wire(1, VICTIM);
        let fate = std::mem::replace(&mut world.fate, Box::new(|_, _, _, _| None));
        world.say(1, VICTIM, b"caught on the way");
        self.recorded.caught = world.sealed_on_wire(1, VICTIM).pop().unwrap();
        world.fate = fate;
        world.heard.clear();
    }

    /// What a node's engine seals for the victim from this port.
    fn says(&mut self, node: usize, port: u32, frame: &[u8]) -> Vec<u8> {
        let world = &mut self.world;
        let fate = std::mem::replace(&mut world.fate, Box::new(|_, _, _, _| None));
        world.wire.clear();
        world.frame(node, PortId(port), VnetHdr::default(), frame);
        world.fate = fate;
        world.sealed_on_wire(node, VICTIM).pop().unwrap()
    }

    fn any(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        bytes.resize_with(len, || (self.dice)(256) as u8);
        bytes
    }

    fn pick(&mut self, of: &[Vec<u8>]) -> Vec<u8> {
        of[(self.dice)(of.len() as u64) as usize].clone()
    }

    fn tell(&mut self, class: &'static str, from: Ipv4Addr, datagram: &[u8], reasons: Reasons) {
        let world = &mut self.world;
        let (before, heard) = (world.drops(VICTIM), world.heard.len());
        let sent = world.inject(from, VICTIM, datagram);
        let after = world.drops(VICTIM);
        let reason =
            after.into_iter().find(|(reason, n)| before.get(reason) != Some(n)).map(|(reason, _)| reason);
        assert_eq!((world.heard.len() - heard, sent), (0, 0), "{class}: heard, answered; {reason:?}");
        let reason = reason.unwrap_or_else(|| panic!("{class}: {datagram:02x?} was not counted"));
        assert!(reasons.contains(&reason), "{class}: {reason}");
        let (count, by_reason) = self.counts.entry(class).or_default();
        *count += 1;
        *by_reason.entry(reason).or_default() += 1;
    }

    /// One of each class that costs the victim little.
    fn forge(&mut self) {
        let (one, liar, frame) = (vtep(1), vtep(LIAR), frame());
        let caught = self.recorded.caught.clone();
        self.tell("plain, sealed network, from a member", one, &plain(VNI, &frame), &[Unsealed]);
        self.tell("plain, sealed network, from a stranger", STRANGER, &plain(VNI, &frame), &[Unsealed]);
        self.tell("plain, no network", one, &plain(0x77_77, &frame), &[UnknownVni]);
        self.tell(
            "plain, plain network, from a stranger",
            STRANGER,
            &plain(PLAIN_VNI, &frame),
            &[UnknownVtep],
        );
        self.tell("plain, another's MAC", liar, &plain(PLAIN_VNI, &frame), &[SpoofedMac]);
        let wrong_source = {
            let mut frame = udp(Ipv4Addr::new(10, 1, 0, 77), container(VICTIM), b"marker");
            frame[6..12].copy_from_slice(&MacAddr::for_ip(container(1)).0);
            frame
        };
        self.tell("plain, nobody's address", one, &plain(PLAIN_VNI, &wrong_source), &[SpoofedSource]);
        let mut flags = plain(VNI, &frame);
        flags[(self.dice)(4) as usize] ^= 1 << (self.dice)(8);
        self.tell("VXLAN flags", one, &flags, &[VxlanFlags]);
        let mut mark = plain(VNI, &frame);
        mark[7] = 2 + (self.dice)(254) as u8;
        self.tell("another mark", one, &mark, &[VxlanMark]);
        let short = (self.dice)(8) as usize;
        self.tell("no whole header", one, &caught[..short], &[Truncated]);

        self.tell("sealed, from a stranger", STRANGER, &caught, &[SealStranger]);
        let mut unknown = caught.clone();
        let index = self.any(4);
        unknown[8..12].copy_from_slice(&index);
        unknown[11] |= 1;
        self.tell("sealed, no session", one, &unknown, &[SessionUnknown]);
        self.tell("sealed, another peer's session", liar, &caught, &[SessionUnknown]);
        let replay = {
            let all = std::mem::take(&mut self.recorded.replays);
            let one = self.pick(&all);
            self.recorded.replays = all;
            one
        };
        self.tell("sealed, once more", one, &replay, &[Replayed]);
        if !self.recorded.bygone.is_empty() {
            let all = std::mem::take(&mut self.recorded.bygone);
            let bygone = self.pick(&all);
            self.recorded.bygone = all;
            self.tell("sealed, of a former session or life", one, &bygone, &[SessionUnknown, Replayed]);
        }
        self.forge_bytes(one, &caught);
        self.forge_handshakes(one);
    }

    fn forge_bytes(&mut self, one: Ipv4Addr, caught: &[u8]) {
        let mut flipped = caught.to_vec();
        flipped[20 + (self.dice)(caught.len() as u64 - 36) as usize] ^= 1 << (self.dice)(8);
        self.tell("sealed, a bit of the text", one, &flipped, &[SealBroken]);
        let mut flipped = caught.to_vec();
        flipped[caught.len() - 1 - (self.dice)(16) as usize] ^= 1 << (self.dice)(8);
        self.tell("sealed, a bit of the tag", one, &flipped, &[SealBroken]);
        let mut moved = caught.to_vec();
        moved[4..7].copy_from_slice(&[1 + (self.dice)(255) as u8, 0x10, 0x02]);
        self.tell("sealed, moved to another network", one, &moved, &[SealBroken]);
        let mut counted = caught.to_vec();
        let counter = u64::from_be_bytes(counted[12..20].try_into().unwrap()) + 1 + (self.dice)(1 << 40);
        counted[12..20].copy_from_slice(&counter.to_be_bytes());
        self.tell("sealed, another counter", one, &counted, &[SealBroken]);
        counted[12..20].copy_from_slice(&(u64::MAX - (self.dice)(1 << 13)).to_be_bytes());
        self.tell("sealed, beyond the last counter", one, &counted, &[SessionExpired]);
        let len = 40 + (self.dice)(caught.len() as u64 - 40) as usize;
        self.tell("sealed, cut short", one, &caught[..len], &[SealBroken]);
        let len = 8 + (self.dice)(32) as usize;
        self.tell("sealed, headers only", one, &caught[..len], &[Truncated]);
        let more = 1 + (self.dice)(3_000) as usize;
        let longer = [caught, &vec![0; more]].concat();
        self.tell("sealed, longer", one, &longer, &[SealBroken]);
        let text = self.any(caught.len() - 20);
        let invented = [&caught[..20], &text].concat();
        self.tell("sealed, invented", one, &invented, &[SealBroken]);
    }

    /// By who does not know the victim's key.
    fn forge_handshakes(&mut self, one: Ipv4Addr) {
        let header = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        let message = |kind: u8, body: &[u8]| [&header[..], &[kind, 0, 0, 0], body].concat();
        let mut initiation = self.any(164);
        initiation[3] |= 1;
        let initiation = message(1, &initiation);
        self.tell("initiation, from a stranger", STRANGER, &initiation, &[HandshakeStranger]);
        self.tell("initiation, invented", one, &initiation, &[HandshakeMac]);
        let mut response = self.any(104);
        response[3] |= 1;
        response[7] |= 1;
        self.tell("response, unasked", one, &message(2, &response), &[HandshakeUnasked]);
        let mut cookie = self.any(60);
        cookie[3] |= 1;
        self.tell("cookie, unasked", one, &message(3, &cookie), &[HandshakeUnasked]);
        let len = (self.dice)(164) as usize;
        let body = self.any(len);
        self.tell("handshake, another length", one, &message(1, &body), &[HandshakeMalformed]);
        let (kind, body) = (4 + (self.dice)(252) as u8, self.any(164));
        self.tell("handshake, another kind", one, &message(kind, &body), &[HandshakeMalformed]);
        let mut of_network = initiation;
        of_network[6] = 1 + (self.dice)(255) as u8;
        self.tell("handshake, of a network", one, &of_network, &[HandshakeMalformed]);
    }

    /// By who knows the victim's key, or is a member.
    fn forge_signed(&mut self) {
        let (one, liar) = (vtep(1), vtep(LIAR));
        if !self.recorded.initiations.is_empty() {
            let all = std::mem::take(&mut self.recorded.initiations);
            let recorded = self.pick(&all);
            self.recorded.initiations = all;
            let reasons = &[HandshakeReplayed, HandshakeStale];
            self.tell("initiation, once more", one, &recorded, reasons);
            self.tell("initiation, another peer's", liar, &recorded, &[HandshakeForged]);
        }
        let spoofed_mac = self.says(LIAR, 7, &frame());
        self.tell("sealed by a member, another's MAC", liar, &spoofed_mac, &[SpoofedMac]);
        let mut own = udp(Ipv4Addr::new(10, 1, 0, 99), container(VICTIM), b"marker");
        own[6..12].copy_from_slice(&MacAddr::for_ip(container(LIAR)).0);
        let spoofed_source = self.says(LIAR, 8, &own);
        self.tell("sealed by a member, nobody's address", liar, &spoofed_source, &[SpoofedSource]);
        let mixed_up = self.says(LIAR, PLAIN_PORT.0, &udp(container(LIAR), container(VICTIM), b"marker"));
        self.tell("sealed by a member, plain network", liar, &mixed_up, &[VxlanSealed]);
        let words = udp(container(OUTSIDER), container(VICTIM), b"marker");
        let from_outside = self.says(OUTSIDER, PORT.0, &words);
        let reasons = &[UnknownVtep];
        self.tell("sealed by a peer that is not on the network", vtep(OUTSIDER), &from_outside, reasons);
    }

    fn begin_anew(&mut self, node: usize) {
        self.world.keeps_wire = true;
        self.world.wire.clear();
        self.world.start(node);
        self.world.run_for(4 * SECOND);
        self.recorded
            .initiations
            .extend(self.world.handshakes_on_wire(1, VICTIM).into_iter().filter(|m| m.len() == 180));
        assert_eq!(self.world.round(1, VICTIM, 100), Some(1), "after the restart of {node}");
    }
}

#[test]
fn no_forgery_of_any_class_is_heard_or_answered() {
    let wanted = std::env::var("SKEP_FORGERIES").map_or(FORGERIES, |text| text.parse().unwrap());
    let mut forger = Forger::new();
    let mut rounds = 0;
    while forger.counts.values().map(|(count, _)| count).sum::<u64>() < wanted {
        if rounds % LIFE == 0 {
            forger.begin_anew(1 + (rounds / LIFE % 3) as usize);
        }
        forger.listen();
        (0..IN_A_ROUND).for_each(|_| forger.forge());
        (0..SIGNED_IN_A_ROUND).for_each(|_| forger.forge_signed());
        forger.world.run_for(ROUND);
        assert_eq!(forger.world.round(1, VICTIM, 100), Some(1), "true words arrive as ever");
        rounds += 1;
    }
    for (class, (count, by_reason)) in &forger.counts {
        println!("{count:>9}  {class}: {by_reason:?}");
    }
    assert!(forger.counts.len() >= 36, "{} classes", forger.counts.len());
    let total: u64 = forger.counts.values().map(|(count, _)| count).sum();
    println!("{total} forgeries of {} classes: 0 heard, 0 answered", forger.counts.len());
}
