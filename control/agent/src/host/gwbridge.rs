//! The egress bridge and the veths between it and the containers.

use super::addresses::{AddressPool, Lease, gateway};
use super::netlink::{Netlink, default_route};
use super::netns::Netns;
use super::upkeep::{Interface, Seen};
use super::{EgressInterface, GWBRIDGE, GwbridgeError, VETH_PREFIX, subnet, sysctl};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::RouteHeader;
use rtnetlink::{LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth};
use skep_dataplane::ids::MacAddr;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Gwbridge {
    pub(super) subnet: Ipv4Net,
    mtu: u32,
    pool: Arc<AddressPool>,
}

/// A container's way out: both ends of its veth and its address.
#[derive(Debug)]
pub(super) struct Veth {
    pub(super) host_side: String,
    pub(super) inside: EgressInterface,
    _lease: Lease,
}

impl Gwbridge {
    /// Makes the bridge, or makes it again with the subnet it had.
    pub(super) async fn create(
        netns: &Netns,
        netlink: &Netlink,
        mtu: u32,
        subnet: Ipv4Net,
    ) -> Result<Self, GwbridgeError> {
        // A bridge without a fixed address takes the lowest of its ports' and changes it under its neighbours.
        let mac = MacAddr::for_ip(gateway(subnet));
        let link = LinkBridge::new(GWBRIDGE).down().mtu(mtu).address(mac.0.to_vec()).build();
        netlink.add_link(link).await.map_err(step("create the bridge"))?;
        let without_ipv6 = || sysctl::disable_ipv6(GWBRIDGE);
        netns.run(without_ipv6).await.map_err(step("turn off IPv6 on"))?;
        let index = netlink.index_of(GWBRIDGE).await.map_err(step("find"))?;
        let addr = Ipv4Net::new_assert(gateway(subnet), subnet.prefix_len());
        netlink.add_address(index, addr).await.map_err(step("give its address to"))?;
        netlink.set_up(index).await.map_err(step("bring up"))?;
        let bridge = Self { subnet, mtu, pool: AddressPool::new(subnet) };
        bridge.adopt_veths(netlink, index).await.map_err(step("connect containers to"))?;
        Ok(bridge)
    }

    /// Makes a bridge that somebody deleted again; its containers keep their addresses.
    pub(super) async fn recreate(&mut self, netns: &Netns, netlink: &Netlink) -> Result<(), GwbridgeError> {
        let pool = Arc::clone(&self.pool);
        *self = Self { pool, ..Self::create(netns, netlink, self.mtu, self.subnet).await? };
        Ok(())
    }

    /// Makes it, and its containers' veths, what they should be; returns what was changed back.
    pub(super) async fn put_right(
        &mut self,
        seen: &Seen,
        netns: &Netns,
        netlink: &Netlink,
    ) -> Result<Vec<String>, GwbridgeError> {
        let Some(link) = seen.link(GWBRIDGE) else {
            self.recreate(netns, netlink).await?;
            return Ok(vec![format!("the interface {GWBRIDGE}")]);
        };
        let mut repaired =
            self.interface().put_right(seen, netns, netlink).await.map_err(step("put right"))?;
        for addr in self.lent() {
            let Some(veth) = seen.link(&veth_name(addr)) else { continue };
            if veth.controller == Some(link.index) && veth.isolated && veth.up {
                continue;
            }
            connect(netlink, veth.index, link.index).await.map_err(step("connect a container to"))?;
            netlink.set_up(veth.index).await.map_err(step("connect a container to"))?;
            repaired.push(format!("the interface {}", veth.name));
        }
        Ok(repaired)
    }

    fn interface(&self) -> Interface {
        let addr = gateway(self.subnet);
        Interface {
            name: GWBRIDGE,
            mac: MacAddr::for_ip(addr),
            mtu: self.mtu,
            addr: Ipv4Net::new_assert(addr, self.subnet.prefix_len()),
            settings: &[("forwarding", "1"), ("route_localnet", "0")],
        }
    }

    async fn adopt_veths(&self, netlink: &Netlink, bridge: u32) -> io::Result<()> {
        for link in netlink.links().await?.iter().filter(|link| link.name.starts_with(VETH_PREFIX)) {
            connect(netlink, link.index, bridge).await?;
        }
        Ok(())
    }

    /// The subnet of a new bridge, clear of `taken`.
    pub(super) fn choose_subnet(taken: Vec<Ipv4Net>) -> Result<Ipv4Net, GwbridgeError> {
        subnet::pick(&taken).ok_or(GwbridgeError::NoFreeSubnet { routed: taken })
    }

    /// None when the bridge is full.
    pub(super) fn lend_address(&self) -> Option<Lease> {
        self.pool.lend()
    }

    pub(super) fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Addresses of the containers on it, in order.
    pub(super) fn lent(&self) -> Vec<Ipv4Addr> {
        self.pool.lent()
    }
}

impl Veth {
    /// Connects `container` with an interface `name` and a default route. On an error it is all gone.
    pub(super) async fn create(
        host: (&Netns, &Netlink),
        container: (&Netns, &Netlink),
        name: &str,
        lease: Lease,
        mtu: u32,
    ) -> io::Result<Self> {
        let subnet = lease.subnet();
        let inside = EgressInterface {
            name: name.to_owned(),
            addr: Ipv4Net::new_assert(lease.addr(), subnet.prefix_len()),
            gateway: gateway(subnet),
        };
        let host_side = veth_name(lease.addr());
        host.1.add_link(veth_pair(&host_side, &inside, container.0, mtu)).await?;
        let veth = Self { host_side, inside, _lease: lease };
        match veth.configure(host, container).await {
            Ok(()) => Ok(veth),
            Err(error) => {
                // Its end in the namespace goes with it. What counts is the first error.
                let _ = host.1.delete_link_named(&veth.host_side).await;
                Err(error)
            }
        }
    }

    async fn configure(&self, host: (&Netns, &Netlink), container: (&Netns, &Netlink)) -> io::Result<()> {
        let (outside, inside) = (self.host_side.clone(), self.inside.name.clone());
        host.0.run(move || sysctl::disable_ipv6(&outside)).await?;
        container.0.run(move || sysctl::disable_ipv6(&inside)).await?;

        let port = host.1.index_of(&self.host_side).await?;
        let bridge = host.1.index_of(GWBRIDGE).await?;
        connect(host.1, port, bridge).await?;
        host.1.set_up(port).await?;

        let index = container.1.index_of(&self.inside.name).await?;
        container.1.add_address(index, self.inside.addr).await?;
        container.1.set_up(index).await?;
        let main = RouteHeader::RT_TABLE_MAIN.into();
        container.1.add_route(default_route(self.inside.gateway, index, None, main)).await
    }
}

/// The host's side of the veth of the container that has this address on the bridge. The name carries it,
/// so an operator sees which container's it is.
pub(super) fn veth_name(addr: Ipv4Addr) -> String {
    format!("{VETH_PREFIX}{:08x}", u32::from(addr))
}

/// Isolated ports exchange no frame with one another; each reaches the bridge itself.
async fn connect(netlink: &Netlink, port: u32, bridge: u32) -> io::Result<()> {
    netlink.change_link(LinkUnspec::new_with_index(port).controller(bridge).build()).await?;
    netlink.change_link(LinkBridgePort::new(port).isolated(true).build()).await
}

fn veth_pair(host_side: &str, inside: &EgressInterface, netns: &Netns, mtu: u32) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(inside.name.clone()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::Address(MacAddr::for_ip(inside.addr.addr()).0.to_vec()),
        LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()),
    ];
    LinkVeth::new(host_side, &inside.name)
        .mtu(mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build()
}

fn step(what: &'static str) -> impl FnOnce(io::Error) -> GwbridgeError {
    move |source| GwbridgeError::Step { step: format!("{what} {GWBRIDGE}"), source }
}
