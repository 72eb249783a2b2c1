//! Links, addresses, routes and rules of one namespace, in the few forms the host needs.

use super::netns::Netns;
use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use skep_dataplane::ids::MacAddr;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use tokio::task::JoinHandle;

/// A netlink connection. Its socket was made in a namespace and speaks for that one from any thread.
#[derive(Debug)]
pub(super) struct Netlink {
    handle: Handle,
    driver: JoinHandle<()>,
}

#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) up: bool,
    pub(super) mac: Option<MacAddr>,
    /// The bridge it is a port of.
    pub(super) controller: Option<u32>,
    /// Whether it is kept from that bridge's other isolated ports.
    pub(super) isolated: bool,
}

/// An IPv4 address and the link that has it.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) addr: Ipv4Net,
    pub(super) global: bool,
}

/// An IPv4 unicast route of any table; those of `local` are of other kinds.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) destination: Ipv4Net,
    /// None for a route of several next hops.
    pub(super) index: Option<u32>,
    pub(super) table: u32,
}

impl Route {
    /// What a packet without a more specific route takes, unless a rule says otherwise.
    pub(super) fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0 && self.is_main()
    }

    pub(super) fn is_main(&self) -> bool {
        self.table == u32::from(RouteHeader::RT_TABLE_MAIN)
    }
}

impl Netlink {
    pub(super) async fn in_netns(netns: &Netns) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle) = netns
            .run(move || {
                let _reactor = runtime.enter();
                let (connection, handle, _multicast) = rtnetlink::new_connection()?;
                Ok((connection, handle))
            })
            .await?;
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }

    pub(super) async fn links(&self) -> io::Result<Vec<Link>> {
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(to_io)?;
        Ok(messages.into_iter().filter_map(link_of).collect())
    }

    pub(super) async fn link(&self, name: &str) -> io::Result<Option<Link>> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await.map_err(to_io) {
            Ok(message) => Ok(message.and_then(link_of)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`Self::link`], for a link that has to be there.
    pub(super) async fn index_of(&self, name: &str) -> io::Result<u32> {
        let link = self.link(name).await?;
        link.map(|link| link.index).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("the interface {name} has disappeared"))
        })
    }

    pub(super) async fn add_link(&self, link: LinkMessage) -> io::Result<()> {
        self.handle.link().add(link).execute().await.map_err(to_io)
    }

    /// Changes what `link` says of the link with its index.
    pub(super) async fn change_link(&self, link: LinkMessage) -> io::Result<()> {
        self.handle.link().change(link).execute().await.map_err(to_io)
    }

    pub(super) async fn set_up(&self, index: u32) -> io::Result<()> {
        self.change_link(LinkUnspec::new_with_index(index).up().build()).await
    }

    pub(super) async fn set_down(&self, index: u32) -> io::Result<()> {
        self.change_link(LinkUnspec::new_with_index(index).down().build()).await
    }

    pub(super) async fn set_up_ethernet(
        &self,
        index: u32,
        mac: MacAddr,
        mtu: u32,
        queue: u32,
    ) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(index).address(mac.0.to_vec()).mtu(mtu).txqueuelen(queue);
        self.change_link(link.up().build()).await
    }

    pub(super) async fn delete_link(&self, index: u32) -> io::Result<()> {
        self.handle.link().del(index).execute().await.map_err(to_io)
    }

    /// False if there was none of that name.
    pub(super) async fn delete_link_named(&self, name: &str) -> io::Result<bool> {
        match self.link(name).await? {
            Some(link) => self.delete_link(link.index).await.map(|()| true),
            None => Ok(false),
        }
    }

    pub(super) async fn addresses(&self) -> io::Result<Vec<Address>> {
        let messages: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(to_io)?;
        Ok(messages.into_iter().filter_map(address_of).collect())
    }

    pub(super) async fn add_address(&self, index: u32, addr: Ipv4Net) -> io::Result<()> {
        let request = self.handle.address().add(index, IpAddr::V4(addr.addr()), addr.prefix_len());
        request.execute().await.map_err(to_io)
    }

    pub(super) async fn routes(&self) -> io::Result<Vec<Route>> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let messages: Vec<RouteMessage> =
            self.handle.route().get(all).execute().try_collect().await.map_err(to_io)?;
        Ok(messages.into_iter().filter_map(route_of).collect())
    }

    pub(super) async fn add_route(&self, route: RouteMessage) -> io::Result<()> {
        self.handle.route().add(route).execute().await.map_err(to_io)
    }

    pub(super) async fn delete_route(&self, route: RouteMessage) -> io::Result<()> {
        self.handle.route().del(route).execute().await.map_err(to_io)
    }

    pub(super) async fn add_rule(&self, rule: RuleMessage) -> io::Result<()> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule;
        request.execute().await.map_err(to_io)
    }

    pub(super) async fn delete_rule(&self, rule: RuleMessage) -> io::Result<()> {
        self.handle.rule().del(rule).execute().await.map_err(to_io)
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// `ip route add default via GATEWAY dev INDEX [src SOURCE] table TABLE`
pub(super) fn default_route(
    gateway: Ipv4Addr,
    index: u32,
    source: Option<Ipv4Addr>,
    table: u32,
) -> RouteMessage {
    let route =
        RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).table_id(table);
    match source {
        Some(source) => route.pref_source(source).build(),
        None => route.build(),
    }
}

/// `ip route add unreachable SUBNET metric MAX`: taken where nothing else leads there.
pub(super) fn unreachable_route(subnet: Ipv4Net) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(subnet.network(), subnet.prefix_len())
        .kind(RouteType::Unreachable)
        .priority(u32::MAX)
        .build()
}

/// What the kernel makes of an interface's address: `ip route add SUBNET dev INDEX proto kernel scope link src ADDR`
pub(super) fn on_link_route(addr: Ipv4Net, index: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(addr.network(), addr.prefix_len())
        .output_interface(index)
        .protocol(RouteProtocol::Kernel)
        .scope(RouteScope::Link)
        .pref_source(addr.addr())
        .build()
}

/// `ip rule add pref PREFERENCE [SELECTORS] lookup TABLE`
pub(super) fn lookup_rule(preference: u32, table: u8, selectors: Vec<RuleAttribute>) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    rule.header.action = RuleAction::ToTable;
    rule.header.table = table;
    if selectors.iter().any(|selector| matches!(selector, RuleAttribute::Source(_))) {
        rule.header.src_len = 32;
    }
    rule.attributes = selectors;
    rule.attributes.push(RuleAttribute::Priority(preference));
    rule
}

fn link_of(message: LinkMessage) -> Option<Link> {
    let up = message.header.flags.contains(LinkFlags::Up);
    let index = message.header.index;
    let mut link =
        Link { index, name: String::new(), mtu: 0, up, mac: None, controller: None, isolated: false };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().ok().map(MacAddr),
            LinkAttribute::Controller(bridge) => link.controller = Some(bridge),
            LinkAttribute::LinkInfo(info) => link.isolated = is_isolated(&info),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn is_isolated(info: &[LinkInfo]) -> bool {
    let of_bridge = info.iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => Some(port),
        _ => None,
    });
    of_bridge.is_some_and(|port| port.iter().any(|setting| matches!(setting, InfoBridgePort::Isolated(true))))
}

fn address_of(message: AddressMessage) -> Option<Address> {
    // IFA_LOCAL is the interface's own address; IFA_ADDRESS is the peer's on a point-to-point link.
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(addr)) => Some(*addr),
        _ => None,
    })?;
    Some(Address {
        index: message.header.index,
        addr: Ipv4Net::new(own, message.header.prefix_len).ok()?,
        global: message.header.scope == AddressScope::Universe,
    })
}

fn route_of(message: RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return None;
    }
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut index = None;
    let mut table = header.table.into();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(addr)) => destination = *addr,
            RouteAttribute::Oif(oif) => index = Some(*oif),
            // Numbers above 255 don't fit the header.
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let destination = Ipv4Net::new(destination, header.destination_prefix_length).ok()?;
    Some(Route { destination, index, table })
}

fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(ErrorMessage { code: Some(code), .. }) => {
            io::Error::from_raw_os_error(code.get().abs())
        }
        other => io::Error::other(other),
    }
}
