//! A small cluster to project: this node `n1` and others, network `net1` (10.0.1.0/24) and ingress.

use skep_model::assign::{
    Assignment, Desired, EndpointAssignment, NetworkAssignment, Peer, ServiceAssignment, ServiceNetwork,
    TaskAssignment, ThisNode,
};
use skep_model::data_path::DataPathKey;
use skep_model::node::Availability;
use skep_model::service::{ContainerSpec, EndpointMode, PortConfig, Protocol, PublishMode};
use skep_model::task::{Attachment, TaskState};
use std::net::Ipv4Addr;

pub(crate) const INGRESS: &str = "ing";
pub(crate) const NET: &str = "net1";
pub(crate) const WEB_VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
pub(crate) const WEB_INGRESS_VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

pub(crate) fn this_node() -> Assignment {
    let ingress_addr = Some("10.0.0.2/24".parse().unwrap());
    Assignment::Node(ThisNode { id: "n1".into(), availability: Availability::Active, ingress_addr })
}

/// `n2` receives at 192.0.2.2 and has ingress address 10.0.0.102.
pub(crate) fn peer(id: &str, up: bool) -> Assignment {
    let number: u8 = id[1..].parse().unwrap();
    Assignment::Peer(Peer {
        id: id.into(),
        hostname: id.to_owned(),
        data_path_addr: Ipv4Addr::new(192, 0, 2, number),
        data_path_key: key(number),
        ingress_addr: Some(Ipv4Addr::new(10, 0, 0, 100 + number)),
        up,
    })
}

/// Of node `n<number>`.
pub(crate) fn key(number: u8) -> DataPathKey {
    DataPathKey([number; 32])
}

pub(crate) fn network(id: &str, vni: u32, subnet: &str) -> NetworkAssignment {
    let subnet: ipnet::Ipv4Net = subnet.parse().unwrap();
    NetworkAssignment {
        id: id.into(),
        name: format!("{id}-Name"),
        vni,
        subnet,
        gateway: subnet.hosts().next().unwrap(),
        internal: false,
        ingress: id == INGRESS,
        encrypted: true,
    }
}

/// Task `t<n>` of service `web` in slot n, with address 10.0.1.<10 + n>.
pub(crate) fn endpoint(n: u8, node: &str) -> EndpointAssignment {
    EndpointAssignment {
        task: format!("t{n}").as_str().into(),
        task_name: format!("web.{n}.t{n}"),
        network: NET.into(),
        addr: Ipv4Addr::new(10, 0, 1, 10 + n),
        node: node.into(),
        service: Some("web-id".into()),
        slot: n.into(),
        aliases: vec!["www".to_owned()],
        serving: true,
    }
}

/// The same task's place on ingress.
pub(crate) fn ingress_endpoint(n: u8, node: &str) -> EndpointAssignment {
    EndpointAssignment { network: INGRESS.into(), addr: Ipv4Addr::new(10, 0, 0, 10 + n), ..endpoint(n, node) }
}

/// Not of a service; its address is 10.0.1.<200 + n>.
pub(crate) fn attachment(name: &str, n: u8, node: &str) -> EndpointAssignment {
    EndpointAssignment {
        task: format!("a{n}").as_str().into(),
        task_name: name.to_owned(),
        addr: Ipv4Addr::new(10, 0, 1, 200 + n),
        service: None,
        slot: 0,
        aliases: Vec::new(),
        ..endpoint(n, node)
    }
}

/// Published on TCP 8080 → 80 and UDP 9000 → 9001.
pub(crate) fn web() -> ServiceAssignment {
    let foot =
        |network: &str, vip, aliases| ServiceNetwork { network: network.into(), vip: Some(vip), aliases };
    ServiceAssignment {
        id: "web-id".into(),
        name: "Web".to_owned(),
        mode: EndpointMode::Vip,
        networks: vec![
            foot(INGRESS, WEB_INGRESS_VIP, Vec::new()),
            foot(NET, WEB_VIP, vec!["www".to_owned()]),
        ],
        ports: vec![port(Protocol::Tcp, 8080, 80), port(Protocol::Udp, 9000, 9001)],
    }
}

pub(crate) fn port(protocol: Protocol, published_port: u16, target_port: u16) -> PortConfig {
    PortConfig {
        name: String::new(),
        protocol,
        target_port,
        published_port,
        publish_mode: PublishMode::Ingress,
    }
}

/// The assignment of task `t<n>` to this node.
pub(crate) fn task(n: u8, desired_state: TaskState) -> TaskAssignment {
    let attached = |network: &str, addr: String| Attachment {
        network: network.into(),
        addr: addr.parse().unwrap(),
        aliases: Vec::new(),
    };
    TaskAssignment {
        id: format!("t{n}").as_str().into(),
        name: format!("web.{n}.t{n}"),
        service: Some("web-id".into()),
        service_name: "Web".to_owned(),
        slot: n.into(),
        desired_state,
        drained: false,
        container: Some(Box::new(ContainerSpec {
            image: "host".to_owned(),
            args: vec!["true".to_owned()],
            ..ContainerSpec::default()
        })),
        attachments: vec![
            attached(INGRESS, format!("10.0.0.{}/24", 10 + n)),
            attached(NET, format!("10.0.1.{}/24", 10 + n)),
        ],
    }
}

/// This node, two up peers, both networks and the service, with the given endpoints.
pub(crate) fn desired(endpoints: impl IntoIterator<Item = EndpointAssignment>) -> Desired {
    let fixed = [
        this_node(),
        peer("n2", true),
        peer("n3", true),
        Assignment::Network(network(NET, 4097, "10.0.1.0/24")),
        Assignment::Network(network(INGRESS, 4096, "10.0.0.0/24")),
        Assignment::Service(web()),
    ];
    Desired::new(1, fixed.into_iter().chain(endpoints.into_iter().map(Assignment::Endpoint)))
}
