use super::*;
use crate::service::{PortConfig, Protocol};
use crate::task::Attachment;
use proptest::prelude::*;

fn addr(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, host)
}

fn net(host: u8) -> Ipv4Net {
    Ipv4Net::new(addr(host), 24).unwrap()
}

fn peer(id: u8, up: bool) -> Assignment {
    Assignment::Peer(Peer {
        id: NodeId(format!("n{id}")),
        hostname: String::new(),
        data_path_addr: Ipv4Addr::new(192, 0, 2, id),
        data_path_key: DataPathKey([id; 32]),
        ingress_addr: None,
        up,
    })
}

fn this_node(variant: u8) -> Assignment {
    let availability = if variant.is_multiple_of(2) { Availability::Active } else { Availability::Drain };
    Assignment::Node(ThisNode { id: NodeId::from("n0"), availability, ingress_addr: Some(net(variant)) })
}

fn network(id: u8, variant: u8) -> Assignment {
    Assignment::Network(NetworkAssignment {
        id: NetworkId(format!("net{id}")),
        name: format!("network{id}"),
        vni: 4096 + u32::from(variant),
        subnet: net(0),
        gateway: addr(1),
        internal: variant.is_multiple_of(2),
        ingress: id == 0,
        encrypted: variant.is_multiple_of(2),
    })
}

fn endpoint(id: u8, variant: u8) -> Assignment {
    Assignment::Endpoint(EndpointAssignment {
        task: TaskId(format!("t{}", id / 2)),
        task_name: format!("web.{id}"),
        network: NetworkId(format!("net{}", id % 2)),
        addr: addr(id + variant),
        node: NodeId(format!("n{variant}")),
        service: (!id.is_multiple_of(3)).then(|| ServiceId::from("s1")),
        slot: id.into(),
        aliases: vec![format!("alias{variant}")],
        serving: variant.is_multiple_of(2),
    })
}

fn service(id: u8, variant: u8) -> Assignment {
    let port = PortConfig {
        protocol: Protocol::Tcp,
        published_port: 8000 + u16::from(variant),
        ..PortConfig::default()
    };
    let network =
        ServiceNetwork { network: NetworkId::from("net1"), vip: Some(addr(variant)), aliases: Vec::new() };
    Assignment::Service(ServiceAssignment {
        id: ServiceId(format!("s{id}")),
        name: format!("service{id}"),
        mode: EndpointMode::default(),
        networks: vec![network],
        ports: vec![port; usize::from(variant % 3)],
    })
}

fn task(id: u8, variant: u8) -> Assignment {
    let attachment = Attachment { network: NetworkId::from("net1"), addr: net(variant), aliases: Vec::new() };
    Assignment::Task(TaskAssignment {
        id: TaskId(format!("t{id}")),
        name: format!("web.{id}"),
        service: Some(ServiceId::from("s1")),
        service_name: "web".to_owned(),
        slot: id.into(),
        desired_state: if variant.is_multiple_of(2) { TaskState::Running } else { TaskState::Shutdown },
        drained: variant == 3,
        container: (variant != 2).then(Box::default),
        attachments: vec![attachment],
    })
}

fn any_assignment() -> impl Strategy<Value = Assignment> {
    (0u8..6, 0u8..6, 0u8..4).prop_map(|(kind, id, variant)| match kind {
        0 => this_node(variant),
        1 => peer(id, variant.is_multiple_of(2)),
        2 => network(id, variant),
        3 => endpoint(id, variant),
        4 => service(id, variant),
        _ => task(id, variant),
    })
}

fn any_set() -> impl Strategy<Value = Vec<Assignment>> {
    prop::collection::vec(any_assignment(), 0..24)
}

/// What becomes of a message on its way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    IsLost,
    ComesTwice,
    /// The one before comes once more, after it.
    BringsBackTheLast,
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Arrives),
        1 => Just(Fate::IsLost),
        1 => Just(Fate::ComesTwice),
        1 => Just(Fate::BringsBackTheLast),
    ]
}

proptest! {
    #[test]
    fn increments_and_complete_sets_lead_to_the_same_state(a in any_set(), b in any_set()) {
        let (a, b) = (Desired::new(1, a), Desired::new(2, b));
        let mut by_delta = a.clone();
        match b.since(&a) {
            Some(delta) => by_delta.apply(delta).unwrap(),
            None => by_delta.revision = b.revision,
        }
        let mut by_complete = a;
        by_complete.apply(b.complete()).unwrap();
        prop_assert_eq!(&by_delta, &b);
        prop_assert_eq!(&by_complete, &b);
    }

    #[test]
    fn messages_say_the_same_after_a_trip_over_the_wire(a in any_set(), b in any_set()) {
        let (a, b) = (Desired::new(1, a), Desired::new(2, b));
        for message in b.since(&a).into_iter().chain([b.complete()]) {
            let wire = serde_json::to_string(&message).unwrap();
            prop_assert_eq!(serde_json::from_str::<Assignments>(&wire).unwrap(), message);
        }
    }

    /// Whatever increments do on their way: a receiver has exactly what the sender had at the receiver's revision,
    /// or notices a gap, asks, and has it then.
    #[test]
    fn lost_and_repeated_increments_are_noticed(
        steps in prop::collection::vec((any_set(), any_fate()), 1..16),
    ) {
        let mut sent = Desired::new(1, []);
        let mut node = sent.clone();
        let mut history = vec![sent.clone()];
        let mut before: Option<Assignments> = None;
        for (revision, (set, fate)) in (2..).zip(steps) {
            let wanted = Desired::new(revision, set);
            let Some(message) = wanted.since(&sent) else { continue };
            sent = wanted.clone();
            history.push(wanted);
            let arriving: Vec<Assignments> = match fate {
                Fate::Arrives => vec![message.clone()],
                Fate::IsLost => Vec::new(),
                Fate::ComesTwice => vec![message.clone(), message.clone()],
                Fate::BringsBackTheLast => [message.clone()].into_iter().chain(before.clone()).collect(),
            };
            before = Some(message);
            let gaps = arriving.into_iter().filter_map(|message| node.apply(message).err()).count();
            prop_assert!(history.contains(&node), "{:?} was never sent", node);
            if gaps > 0 {
                node.apply(sent.complete()).unwrap();
                prop_assert_eq!(&node, &sent);
            }
        }
        let last = Desired::new(1_000, [this_node(0)]);
        if let Some(message) = last.since(&sent) {
            if node.apply(message).is_err() {
                node.apply(last.complete()).unwrap();
            }
            prop_assert_eq!(node, last);
        }
    }
}

#[test]
fn a_gap_changes_nothing() {
    let mut node = Desired::new(3, [peer(1, true)]);
    let before = node.clone();
    let later = Desired::new(9, [peer(2, true)]);
    let delta = later.since(&Desired::new(7, [])).unwrap();
    assert_eq!(node.apply(delta), Err(Gap { have: 3, applies_to: 7 }));
    assert_eq!(node, before);
}
