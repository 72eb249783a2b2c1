//! What the hosts' interfaces do for those who send large segments.

use crate::lab::Lab;
use crate::program::run_line;
use anyhow::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Underlay {
    /// As a veth is by itself: it hands on any segment uncut, also inside tunnels. No wire does that.
    Veth,
    /// Nearer to a network card that knows nothing of tunnels: the sender's kernel cuts what it sends into packets, and
    /// the receiver's puts them together again where it can.
    WireLike,
}

/// ethtool's names of what a veth claims that its hardware does.
const SEGMENTATION: [&str; 4] =
    ["tso", "tx-udp-segmentation", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];

impl Underlay {
    /// Switches both hosts of a lab. Nobody on them is told.
    pub(super) fn lay(self, lab: &Lab) -> Result<()> {
        let (cut_by_hardware, merges) = match self {
            Self::Veth => ("on", "off"),
            Self::WireLike => ("off", "on"),
        };
        let segmentation = SEGMENTATION.map(|feature| format!("{feature} {cut_by_hardware}")).join(" ");
        for host in [lab.node(1), lab.node(2)] {
            host.run(&format!("ethtool -K eth0 {segmentation} gro {merges}"))?;
            // The kernel merges nothing that comes from a veth which might have sent it whole
            // (`veth_skb_is_eligible_for_gro`).
            let (wire, port) = (lab.underlay_netns(), host.name());
            run_line(&format!("ip netns exec {wire} ethtool -K {port} {segmentation}"))?;
        }
        Ok(())
    }
}
