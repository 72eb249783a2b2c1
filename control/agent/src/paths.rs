//! The paths to this node's peers, with whom they lead to.

use skep_dataplane::PathStats;
use skep_model::NodeId;
use skep_model::assign::{Assignment, Desired, Peer};
use skep_model::data_path::DataPathKey;
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// What is seen of one peer. Who it is is unknown for a moment when it has just been removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPath {
    pub node: Option<NodeId>,
    pub hostname: String,
    pub key: Option<DataPathKey>,
    pub stats: PathStats,
}

pub(crate) fn named(desired: Option<&Desired>, paths: Vec<PathStats>) -> Vec<PeerPath> {
    let assignments = desired.into_iter().flat_map(|desired| desired.assignments.values());
    let peers: HashMap<Ipv4Addr, &Peer> = assignments
        .filter_map(|assignment| match assignment {
            Assignment::Peer(peer) => Some((peer.data_path_addr, peer)),
            _ => None,
        })
        .collect();
    let named = |stats: PathStats| {
        let peer = peers.get(&stats.peer);
        PeerPath {
            node: peer.map(|peer| peer.id.clone()),
            hostname: peer.map(|peer| peer.hostname.clone()).unwrap_or_default(),
            key: peer.map(|peer| peer.data_path_key),
            stats,
        }
    };
    paths.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::example;
    use skep_dataplane::SessionStats;

    #[test]
    fn a_path_has_its_peers_name() {
        let path = |peer| PathStats {
            peer: Ipv4Addr::new(192, 0, 2, peer),
            asked: 0,
            answered: 0,
            last_heard: None,
            silent: false,
            mtu: 1500,
            is_measured: true,
            session: SessionStats::default(),
        };
        let desired = example::desired([]);
        let paths = named(Some(&desired), vec![path(2), path(9)]);
        let whom: Vec<_> = paths.iter().map(|path| (path.node.clone(), path.hostname.as_str())).collect();
        assert_eq!(whom, [(Some("n2".into()), "n2"), (None, "")]);
        assert_eq!((paths[0].key, paths[1].key), (Some(example::key(2)), None));
        assert_eq!(named(None, vec![path(2)])[0].node, None);
    }
}
