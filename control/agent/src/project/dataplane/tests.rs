use super::*;
use crate::project::example::{self, INGRESS, NET, WEB_INGRESS_VIP, WEB_VIP};
use proptest::prelude::*;
use skep_dataplane::ids::PortId;
use skep_dataplane::snapshot::Policy;
use skep_model::assign::{Assignment, Desired};
use std::collections::BTreeSet;

const N2: Location = Location::Remote(Ipv4Addr::new(192, 0, 2, 2));

fn local(ports: &[(&str, &str, u32)]) -> Local {
    let ports =
        ports.iter().map(|(network, task, port)| (((*network).into(), (*task).into()), PortId(*port)));
    Local {
        ports: ports.collect(),
        underlay_mtu: 1500,
        gwbridge: Some("172.18.0.0/16".parse().unwrap()),
        ..Local::default()
    }
}

fn project(desired: &Desired, local: &Local) -> (Network, Network) {
    let snapshot = snapshot(&Cluster::of(desired), local);
    let mut networks = snapshot.networks.into_iter();
    let (ingress, net) = (networks.next().unwrap(), networks.next().unwrap());
    assert!(ingress.ingress && !net.ingress);
    (ingress, net)
}

#[test]
fn own_endpoints_are_at_their_ports_and_others_behind_their_nodes_vtep() {
    let desired = example::desired([example::endpoint(1, "n1"), example::endpoint(2, "n2")]);
    let (_, net) = project(&desired, &local(&[(NET, "t1", 7)]));
    let places: Vec<_> = net.endpoints.iter().map(|e| (e.ip.octets()[3], e.location)).collect();
    assert_eq!(places, [(11, Location::Local(PortId(7))), (12, N2)]);
    assert_eq!(net.endpoints[0].mac.to_string(), "02:42:0a:00:01:0b");
    assert_eq!((net.mtu, net.vni.as_u32()), (1418, 4097));
}

#[test]
fn an_own_endpoint_without_interface_does_not_exist_yet() {
    let desired = example::desired([example::endpoint(1, "n1")]);
    let (_, net) = project(&desired, &local(&[]));
    assert!(net.endpoints.is_empty());
    assert!(net.services[0].backends.is_empty());
}

#[test]
fn backends_follow_the_slots() {
    let desired = example::desired([3, 1, 2].map(|n| example::endpoint(n, "n2")));
    let (_, net) = project(&desired, &local(&[]));
    assert_eq!(net.services[0].vip, WEB_VIP);
    assert_eq!(net.services[0].ports, ServicePorts::All);
    let backends: Vec<_> = net.services[0].backends.iter().map(|b| b.ip.octets()[3]).collect();
    assert_eq!(backends, [11, 12, 13]);
}

#[test]
fn what_stops_serving_drains_and_what_is_on_a_dead_node_is_out() {
    let stopping = EndpointAssignment { serving: false, ..example::endpoint(1, "n2") };
    let mut desired = example::desired([stopping, example::endpoint(2, "n2"), example::endpoint(3, "n3")]);
    let dead = example::peer("n3", false);
    desired.assignments.insert(dead.key(), dead);
    let (_, net) = project(&desired, &local(&[]));
    let states: Vec<_> = net.services[0].backends.iter().map(|b| (b.ip.octets()[3], b.state)).collect();
    assert_eq!(states, [(11, BackendState::Draining), (12, BackendState::Active)]);
    assert_eq!(net.endpoints.len(), 3, "by address all can still be reached");
}

#[test]
fn the_backends_of_a_silent_peer_are_out_until_it_answers_and_it_is_probed_all_the_while() {
    let draining = EndpointAssignment { serving: false, ..example::endpoint(3, "n2") };
    let desired = example::desired([example::endpoint(1, "n2"), example::endpoint(2, "n3"), draining]);
    let backends = |local: &Local| -> Vec<u8> {
        let (_, net) = project(&desired, local);
        assert_eq!(net.endpoints.len(), 3, "by address all can still be asked");
        assert_eq!(snapshot(&Cluster::of(&desired), local).peers.len(), 2);
        net.services[0].backends.iter().map(|backend| backend.ip.octets()[3]).collect()
    };
    let well = local(&[]);
    let silent = Local { silent: [Ipv4Addr::new(192, 0, 2, 2)].into(), ..well.clone() };
    assert_eq!(backends(&silent), [12]);
    assert_eq!(backends(&well), [11, 12, 13]);
}

#[test]
fn ingress_opens_published_targets_only_and_holds_every_nodes_skep0() {
    let desired = example::desired([example::ingress_endpoint(1, "n2")]);
    let (ingress, _) = project(&desired, &local(&[]));
    let service = &ingress.services[0];
    assert_eq!(service.vip, WEB_INGRESS_VIP);
    assert_eq!(service.ports, ServicePorts::Only(vec![(L4::Tcp, 80), (L4::Udp, 9001)]));
    let hosts: Vec<_> = ingress.endpoints.iter().filter(|e| e.kind == EndpointKind::Host).collect();
    assert_eq!(hosts.len(), 3);
    assert_eq!(hosts[0].location, Location::Local(SKEP0_PORT));
    assert_eq!((hosts[1].ip, hosts[1].location), (Ipv4Addr::new(10, 0, 0, 102), N2));
}

#[test]
fn overlays_and_the_egress_bridge_are_reserved() {
    let snapshot = snapshot(&Cluster::of(&example::desired([])), &local(&[]));
    let reserved: Vec<_> = snapshot.reserved.iter().map(ToString::to_string).collect();
    assert_eq!(reserved, ["10.0.0.0/24", "10.0.1.0/24", "172.18.0.0/16"]);
}

fn endpoints() -> impl Strategy<Value = Vec<EndpointAssignment>> {
    let one = (1u8..40, 1u8..5, any::<bool>(), any::<bool>()).prop_map(|(n, node, serving, ingress)| {
        let node = format!("n{node}");
        let endpoint =
            if ingress { example::ingress_endpoint(n, &node) } else { example::endpoint(n, &node) };
        EndpointAssignment { serving, ..endpoint }
    });
    prop::collection::vec(one, 0..24)
}

proptest! {
    /// n4 is not a peer (yet), and only some of this node's endpoints have interfaces.
    #[test]
    fn every_backend_can_be_reached(endpoints in endpoints(), held in prop::collection::btree_set(1u8..40, 0..40)) {
        let mut ports = Local { underlay_mtu: 1500, ..Local::default() };
        for n in held {
            let task = format!("t{n}");
            ports.ports.insert((NET.into(), task.as_str().into()), PortId(n.into()));
            ports.ports.insert((INGRESS.into(), task.as_str().into()), PortId(100 + u32::from(n)));
        }
        let desired = example::desired(endpoints);
        let snapshot = snapshot(&Cluster::of(&desired), &ports);
        for network in &snapshot.networks {
            let reachable: BTreeSet<_> = network.endpoints.iter().map(|e| e.ip).collect();
            prop_assert!(network.endpoints.iter().all(|e| network.subnet.contains(&e.ip)));
            for backend in network.services.iter().flat_map(|s| &s.backends) {
                prop_assert!(reachable.contains(&backend.ip));
            }
        }
    }

    /// The manager may send assignments in any order; nodes must agree on the order of round robin.
    #[test]
    fn the_order_of_assignments_does_not_matter(endpoints in endpoints(), seed in any::<prop::sample::Index>()) {
        let desired = example::desired(endpoints);
        let mut rotated: Vec<Assignment> = desired.assignments.values().cloned().collect();
        let middle = seed.index(rotated.len());
        rotated.rotate_left(middle);
        let rotated = Desired::new(1, rotated);
        let local = local(&[]);
        prop_assert_eq!(snapshot(&Cluster::of(&desired), &local), snapshot(&Cluster::of(&rotated), &local));
    }
}

#[test]
fn the_mtu_is_what_the_underlay_and_the_policy_leave() {
    let mut desired = example::desired([]);
    let plain = NetworkAssignment { encrypted: false, ..example::network(NET, 4097, "10.0.1.0/24") };
    let plain = Assignment::Network(plain);
    desired.assignments.insert(plain.key(), plain);
    for (underlay, sealed, plain) in [(1280, 1198, 1230), (1500, 1418, 1450), (9000, 8918, 8950)] {
        let local = Local { underlay_mtu: underlay, ..Local::default() };
        let snapshot = snapshot(&Cluster::of(&desired), &local);
        assert_eq!(u32::from(snapshot.underlay_mtu), underlay);
        let networks: Vec<_> = snapshot.networks.iter().map(|n| (n.ingress, n.policy, n.mtu)).collect();
        assert_eq!(networks, [(true, Policy::Sealed, sealed), (false, Policy::Plain, plain)]);
    }
}

#[test]
fn every_peer_is_known_by_its_key_also_one_that_is_down() {
    let mut desired = example::desired([]);
    let down = example::peer("n3", false);
    desired.assignments.insert(down.key(), down);
    let snapshot = snapshot(&Cluster::of(&desired), &local(&[]));
    let peer = |number| Peer { vtep: Ipv4Addr::new(192, 0, 2, number), key: PublicKey([number; 32]) };
    assert_eq!(snapshot.peers, [peer(2), peer(3)]);
    desired.assignments.remove(&example::peer("n3", false).key());
    assert_eq!(
        super::snapshot(&Cluster::of(&desired), &local(&[])).peers,
        [peer(2)],
        "a removed one has no session"
    );
}
