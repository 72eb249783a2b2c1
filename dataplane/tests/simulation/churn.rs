//! What the managers do: containers come and go, their addresses are given to others at once, services change.

use crate::clients::{TCP_PORT, UDP_PORT};
use crate::rng::Rng;
use crate::run::{Actor, Event, Life, Run};
use crate::world::{Name, Net, Node, Seat, Virtual, World};
use skep_dataplane::snapshot::{L4, Policy};
use std::net::Ipv4Addr;

/// Addresses of containers in every network: few, so that they are soon used again.
const ADDRESSES: std::ops::Range<u8> = 16..24;

/// Addresses of services.
const VIPS: std::ops::Range<u8> = 2..5;

/// Where the host of node n is on the ingress network: 200 + n.
const HOSTS: u8 = 200;

/// One ingress network and up to three overlays, of which some use the same addresses.
pub(crate) fn nets(rng: &mut Rng) -> Vec<Net> {
    let net = |vni, third: u8, ingress| {
        let at = |last| Ipv4Addr::new(10, if ingress { 0 } else { 1 }, third, last);
        let policy = Policy::Plain;
        Net { vni, subnet: format!("{}/24", at(0)).parse().unwrap(), gateway: at(1), ingress, policy }
    };
    let overlays = rng.between(1, 4) as u32;
    let third = |n: u32, rng: &mut Rng| if rng.percent(50) { 0 } else { n as u8 };
    let mut nets = vec![net(4096, 0, true)];
    for n in 1..=overlays {
        let third = third(n, rng);
        nets.push(net(4096 + n, third, false));
    }
    // All of them, some, or none.
    let share = *rng.pick(&[100, 100, 60, 0]);
    for net in &mut nets {
        net.policy = if rng.percent(share) { Policy::Sealed } else { Policy::Plain };
    }
    nets
}

fn address(net: &Net, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = net.gateway.octets();
    Ipv4Addr::new(a, b, c, last)
}

impl Run {
    /// The first world: a host on the ingress network for each node, some containers and services.
    pub(crate) fn found(&mut self) {
        let mut world = World::default();
        for node in 1..=self.nodes() {
            let name = Name { net: 0, ip: address(&self.nets[0], HOSTS + node as u8) };
            self.seat(&mut world, name, node, true);
        }
        for net in 0..self.nets.len() {
            for _ in 0..self.rng.between(2, 7) {
                self.come(&mut world, net);
            }
            for _ in 0..self.rng.between(1, 3) {
                self.serve(&mut world, net);
            }
        }
        self.history = vec![world];
    }

    /// A next revision, and its way to the nodes.
    pub(crate) fn change(&mut self) {
        let mut world = self.world().clone();
        for _ in 0..self.rng.between(1, 4) {
            let net = self.rng.below(self.nets.len() as u64) as usize;
            match self.rng.below(12) {
                0 | 1 => self.come(&mut world, net),
                2 => self.go(&mut world, net),
                3..6 => self.hand_over_address(&mut world, net),
                6 => self.serve(&mut world, net),
                7 => self.scale_up(&mut world, net),
                8..11 => self.drain(&mut world, net),
                _ => self.scale_down(&mut world, net),
            }
        }
        if self.rng.percent(8) {
            if world.gone.is_empty() { self.expel(&mut world) } else { self.take_back(&mut world) }
        }
        let members: Vec<Node> = (1..=self.nodes()).filter(|node| !world.gone.contains(node)).collect();
        let revision = self.revise(world);
        for node in members {
            let late = if self.rng.percent(15) { 1_500_000 } else { 200_000 };
            let after = self.rng.below(late);
            self.later(after, Event::Assign { node, revision, is_full: false });
            if self.rng.percent(20) {
                // A session begins anew: the same once more, whole.
                let after = after + self.rng.below(300_000);
                self.later(after, Event::Assign { node, revision, is_full: true });
            }
        }
    }

    fn revise(&mut self, mut world: World) -> u64 {
        world.revision += 1;
        self.figures.revisions += 1;
        let revision = world.revision;
        self.tell(|| format!("revision {revision}: {world:?}"));
        self.history.push(world);
        revision
    }

    /// A node is no member any more, and goes on as if it were.
    fn expel(&mut self, world: &mut World) {
        let node = self.rng.between(1, self.nodes() as u64 + 1) as Node;
        self.figures.expelled += 1;
        world.gone.insert(node);
        let seats = world.seats.extract_if(.., |_, seat| seat.node == node);
        for (name, _) in seats {
            for (_, service) in world.services.iter_mut().filter(|(vip, _)| vip.net == name.net) {
                service.backends.retain(|(ip, _)| *ip != name.ip);
            }
        }
    }

    fn take_back(&mut self, world: &mut World) {
        for node in std::mem::take(&mut world.gone) {
            let name = Name { net: 0, ip: address(&self.nets[0], HOSTS + node as u8) };
            self.seat(world, name, node, true);
        }
    }

    /// Whoever is gone is a member again.
    pub(crate) fn reunite(&mut self) {
        let mut world = self.world().clone();
        if !world.gone.is_empty() {
            self.take_back(&mut world);
            self.revise(world);
        }
    }

    fn any_member(&mut self, world: &World) -> Node {
        let members: Vec<Node> = (1..=self.nodes()).filter(|node| !world.gone.contains(node)).collect();
        *self.rng.pick(&members)
    }

    fn seat(&mut self, world: &mut World, name: Name, node: Node, is_host: bool) {
        let port = self.next_port;
        self.next_port += 1;
        world.seats.insert(name, Seat { node, port, is_host });
        self.actors.insert((node, port), Actor { name, life: Life::Waiting, is_host });
    }

    /// A container comes, at a free address.
    fn come(&mut self, world: &mut World, net: usize) {
        let name = |last| Name { net, ip: address(&self.nets[net], last) };
        let free: Vec<Name> = ADDRESSES.map(name).filter(|name| !world.seats.contains_key(name)).collect();
        if free.is_empty() {
            return;
        }
        let name = *self.rng.pick(&free);
        let node = self.any_member(world);
        self.seat(world, name, node, false);
    }

    /// A container goes: at once, or when its node hears of it. Its services may hear of that later.
    fn go(&mut self, world: &mut World, net: usize) {
        let Some((name, seat)) = self.any_container(world, net) else { return };
        world.seats.remove(&name);
        if self.rng.percent(50) {
            self.actors.get_mut(&(seat.node, seat.port)).unwrap().life = Life::Over;
        }
        if self.rng.percent(80) {
            for (_, service) in world.services.iter_mut().filter(|(vip, _)| vip.net == net) {
                service.backends.retain(|(ip, _)| *ip != name.ip);
            }
        }
    }

    /// A container goes, and its address is another's in the same moment, mostly on another node.
    fn hand_over_address(&mut self, world: &mut World, net: usize) {
        let Some((name, seat)) = self.any_container(world, net) else { return };
        self.actors.get_mut(&(seat.node, seat.port)).unwrap().life = Life::Over;
        let node = if self.rng.percent(20) { seat.node } else { self.any_member(world) };
        self.seat(world, name, node, false);
        if self.rng.percent(50) {
            for (_, service) in world.services.iter_mut().filter(|(vip, _)| vip.net == net) {
                service.backends.retain(|(ip, _)| *ip != name.ip);
            }
        }
    }

    fn any_container(&mut self, world: &World, net: usize) -> Option<(Name, Seat)> {
        let of_net = world.seats.iter().filter(|(name, seat)| name.net == net && !seat.is_host);
        let all: Vec<_> = of_net.map(|(name, seat)| (*name, *seat)).collect();
        (!all.is_empty()).then(|| *self.rng.pick(&all))
    }

    /// A service comes, of some of the network's containers.
    fn serve(&mut self, world: &mut World, net: usize) {
        let last = self.rng.between(u64::from(VIPS.start), u64::from(VIPS.end)) as u8;
        let name = Name { net, ip: address(&self.nets[net], last) };
        if world.services.contains_key(&name) {
            return;
        }
        let published = vec![(L4::Tcp, TCP_PORT), (L4::Udp, UDP_PORT)];
        let is_named = self.nets[net].ingress || self.rng.percent(20);
        let containers = world.seats.iter().filter(|(name, seat)| name.net == net && !seat.is_host);
        let mut backends: Vec<_> = containers.map(|(name, _)| (name.ip, false)).collect();
        self.rng.shuffle(&mut backends);
        backends.truncate(self.rng.between(1, 6) as usize);
        backends.sort_unstable();
        world.services.insert(name, Virtual { backends, open: is_named.then_some(published) });
    }

    fn scale_up(&mut self, world: &mut World, net: usize) {
        let Some((task, _)) = self.any_container(world, net) else { return };
        let Some(service) = self.any_service(world, net) else { return };
        if service.backends.iter().all(|(ip, _)| *ip != task.ip) {
            service.backends.push((task.ip, false));
            service.backends.sort_unstable();
        }
    }

    fn drain(&mut self, world: &mut World, net: usize) {
        let roll = self.rng.next() as usize;
        let Some(service) = self.any_service(world, net) else { return };
        if !service.backends.is_empty() {
            let at = roll % service.backends.len();
            service.backends[at].1 = true;
        }
    }

    fn scale_down(&mut self, world: &mut World, net: usize) {
        let roll = self.rng.next() as usize;
        let Some(service) = self.any_service(world, net) else { return };
        if !service.backends.is_empty() {
            service.backends.remove(roll % service.backends.len());
        }
    }

    fn any_service<'a>(&mut self, world: &'a mut World, net: usize) -> Option<&'a mut Virtual> {
        let count = world.services.keys().filter(|name| name.net == net).count() as u64;
        let nth = if count == 0 { return None } else { self.rng.below(count) };
        let mut of_net = world.services.iter_mut().filter(|(name, _)| name.net == net);
        of_net.nth(nth as usize).map(|(_, service)| service)
    }
}
