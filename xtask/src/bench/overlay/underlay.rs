//! What the hosts' interfaces do for those who send large segments.

use crate::lab::Lab;
use anyhow::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Underlay {
    /// As a veth is by itself: it hands on any segment uncut, also inside tunnels. No wire does that.
    Veth,
    /// Nearer to a network card that knows nothing of tunnels: the sender's kernel cuts what it sends into packets, the
    /// receiver's may put them together again.
    WireLike,
}

impl Underlay {
    /// Switches both hosts of a lab. Nobody on them is told.
    pub(super) fn lay(self, lab: &Lab) -> Result<()> {
        let (cuts_in_hardware, merges) = match self {
            Self::Veth => ("on", "off"),
            Self::WireLike => ("off", "on"),
        };
        let sends: Vec<_> =
            SEGMENTATION.iter().map(|feature| format!("{feature} {cuts_in_hardware}")).collect();
        for number in [1, 2] {
            lab.node(number).run(&format!("ethtool -K eth0 {} gro {merges}", sends.join(" ")))?;
        }
        Ok(())
    }
}

/// ethtool's names of what a veth is said to do in hardware.
const SEGMENTATION: [&str; 4] =
    ["tso", "tx-udp-segmentation", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
