//! What passes an interface, as `tcpdump` would see it.

use crate::world::PATIENCE;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use skep_agent::host::netns::Netns;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

const ETHERNET: usize = 14;

pub(crate) struct Sniffer {
    socket: OwnedFd,
    interface: usize,
}

/// An IPv4 packet, in either direction.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: u8,
    /// What follows the IP header.
    pub(crate) payload: Vec<u8>,
}

impl Sniffer {
    pub(crate) async fn on(netns: &Netns, interface: &'static str) -> Self {
        let open = move || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
            // Only a failing test waits this long.
            setsockopt(
                &socket,
                sockopt::ReceiveTimeout,
                &TimeVal::seconds(PATIENCE.as_secs().cast_signed()),
            )?;
            Ok(Self { socket, interface: if_nametoindex(interface)? as usize })
        };
        netns.run(open).await.unwrap()
    }

    /// Everything seen up to and including the first packet that `is_it`.
    pub(crate) fn until(&self, is_it: impl Fn(&Packet) -> bool) -> Vec<Packet> {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(&is_it) {
            seen.extend(self.next());
        }
        seen
    }

    /// None for what isn't IPv4, or passed another interface.
    fn next(&self) -> Option<Packet> {
        let mut frame = [0; 2048];
        let (len, from) =
            recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut frame).expect("a packet in time");
        let ip = frame[..len].get(ETHERNET..)?;
        let is_ipv4 = frame[12..ETHERNET] == [0x08, 0x00];
        let is_here = from.is_some_and(|from| from.ifindex() == self.interface);
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        (is_ipv4 && is_here).then(|| Packet {
            source: address(12),
            destination: address(16),
            protocol: ip[9],
            payload: ip[20..].to_vec(),
        })
    }
}
