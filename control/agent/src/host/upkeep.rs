//! An interface of ours compared with what it should be, and put right where somebody else changed it.

use super::netlink::{Address, Link, Netlink, Route, on_link_route};
use super::netns::Netns;
use super::sysctl;
use ipnet::Ipv4Net;
use rtnetlink::LinkUnspec;
use skep_dataplane::ids::MacAddr;
use std::io;

/// What an interface should be.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) name: &'static str,
    pub(super) mac: MacAddr,
    pub(super) mtu: u32,
    pub(super) addr: Ipv4Net,
    /// Settings below /proc/sys/net/ipv4/conf/NAME, with their values.
    pub(super) settings: &'static [(&'static str, &'static str)],
}

/// What the kernel has, read once for all interfaces.
pub(super) struct Seen {
    pub(super) links: Vec<Link>,
    addresses: Vec<Address>,
}

impl Seen {
    pub(super) async fn read(netlink: &Netlink) -> io::Result<Self> {
        Ok(Self { links: netlink.links().await?, addresses: netlink.addresses().await? })
    }

    pub(super) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}

impl Interface {
    /// Returns what was changed back, in a few words each. The interface has to be there.
    pub(super) async fn put_right(
        &self,
        seen: &Seen,
        netns: &Netns,
        netlink: &Netlink,
    ) -> io::Result<Vec<String>> {
        let Some(link) = seen.link(self.name) else { return Ok(Vec::new()) };
        let mut repaired = self.put_settings_right(netns).await?;
        if !link.up || link.mtu != self.mtu || link.mac != Some(self.mac) {
            let right = LinkUnspec::new_with_index(link.index).address(self.mac.0.to_vec()).mtu(self.mtu);
            netlink.change_link(right.up().build()).await?;
            repaired.push(format!("the state of {}", self.name));
        }
        let has_address = |a: &Address| a.index == link.index && a.addr == self.addr;
        if !seen.addresses.iter().any(has_address) {
            netlink.add_address(link.index, self.addr).await?;
            repaired.push(format!("the address of {}", self.name));
        }
        // Last, because the kernel adds it with the address or as the interface comes up.
        let is_route = |route: &Route| {
            route.index == Some(link.index) && route.destination == self.addr.trunc() && route.is_main()
        };
        if !netlink.routes().await?.iter().any(is_route) {
            netlink.add_route(on_link_route(self.addr, link.index)).await?;
            repaired.push(format!("the route of {}", self.name));
        }
        Ok(repaired)
    }

    async fn put_settings_right(&self, netns: &Netns) -> io::Result<Vec<String>> {
        let (name, settings) = (self.name, self.settings);
        netns
            .run(move || {
                let mut repaired = Vec::new();
                for (setting, value) in settings {
                    let key = format!("ipv4/conf/{name}/{setting}");
                    if sysctl::read(&key)? != *value {
                        sysctl::write(&key, value)?;
                        repaired.push(format!("the setting net/{key}"));
                    }
                }
                if !sysctl::has_no_ipv6(name) {
                    sysctl::disable_ipv6(name)?;
                    repaired.push(format!("the setting net/ipv6/conf/{name}/disable_ipv6"));
                }
                Ok(repaired)
            })
            .await
    }
}
