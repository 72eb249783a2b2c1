//! `node.labels.disk==ssd`: what a node has to be. Syntax, rules and texts are Swarm's
//! (swarmkit `manager/constraint`): whole values, letters' case aside; a label a node lacks is empty.

use super::NODE_LABEL;
use ipnet::IpNet;
use skep_model::node::{Node, Role};
use std::net::IpAddr;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Constraint {
    key: Key,
    equal: bool,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    Role,
    Ip,
    Os,
    Architecture,
    Label(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConstraintError {
    #[error("constraint expected one operator from ==, !=: \"{0}\" has none")]
    NoOperator(String),
    #[error("key '{0}' is invalid")]
    Key(String),
    #[error("value '{0}' is invalid")]
    Value(String),
    /// Swarm takes any key and finds no node that has it.
    #[error(
        "key '{0}' says nothing of a node: there are node.id, node.hostname, node.role, node.ip, node.platform.os, node.platform.arch and node.labels.KEY"
    )]
    UnknownKey(String),
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let split = text.split_once("==").map(|parts| (parts, true));
        let split = split.or_else(|| text.split_once("!=").map(|parts| (parts, false)));
        let Some(((key, value), equal)) = split else {
            return Err(ConstraintError::NoOperator(text.to_owned()));
        };
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(ConstraintError::Key(key.to_owned()));
        }
        if !is_value(value) {
            return Err(ConstraintError::Value(value.to_owned()));
        }
        let key = read_key(key).ok_or_else(|| ConstraintError::UnknownKey(key.to_owned()))?;
        let malformed = key == Key::Ip && value.parse::<IpAddr>().is_err() && value.parse::<IpNet>().is_err();
        match malformed {
            true => Err(ConstraintError::Value(value.to_owned())),
            false => Ok(Self { key, equal, value: value.to_owned() }),
        }
    }
}

fn is_key(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let starts = bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    starts && bytes.len() > 1 && bytes.iter().all(inside)
}

fn is_value(text: &str) -> bool {
    let known = |byte: &u8| {
        byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b":-_.*()?+[]\\^$|/".contains(byte)
    };
    !text.is_empty() && text.as_bytes().iter().all(known)
}

/// Letters' case counts in a label's own name only.
fn read_key(text: &str) -> Option<Key> {
    if let Some(prefix) = text.get(..NODE_LABEL.len())
        && prefix.eq_ignore_ascii_case(NODE_LABEL)
        && text.len() > NODE_LABEL.len()
    {
        return Some(Key::Label(text[NODE_LABEL.len()..].to_owned()));
    }
    match text.to_ascii_lowercase().as_str() {
        "node.id" => Some(Key::Id),
        "node.hostname" => Some(Key::Hostname),
        "node.role" => Some(Key::Role),
        "node.ip" => Some(Key::Ip),
        "node.platform.os" => Some(Key::Os),
        "node.platform.arch" => Some(Key::Architecture),
        _ => None,
    }
}

impl Constraint {
    pub(crate) fn is_met_by(&self, node: &Node) -> bool {
        let is = |actual: &str| self.value.eq_ignore_ascii_case(actual);
        let matches = match &self.key {
            Key::Id => is(node.id.as_str()),
            Key::Hostname => is(&node.description.hostname),
            Key::Role => is(role(node.spec.role)),
            Key::Ip => self.covers(&node.status.addr),
            Key::Os => is(&node.description.platform.os),
            Key::Architecture => is(&node.description.platform.architecture),
            Key::Label(name) => is(node.spec.labels.get(name).map_or("", String::as_str)),
        };
        matches == self.equal
    }

    fn covers(&self, addr: &str) -> bool {
        let Ok(addr) = addr.parse::<IpAddr>() else { return false };
        match self.value.parse::<IpNet>() {
            Ok(net) => net.contains(&addr),
            Err(_not_a_subnet) => self.value.parse() == Ok(addr),
        }
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_loop::sim::{Sim, node_id};

    fn met(constraint: &str) -> bool {
        let mut sim = Sim::new(1);
        sim.node(1, |node| {
            node.spec.labels.insert("Disk".to_owned(), "SSD".to_owned());
            node.description.platform.os = "linux".to_owned();
            node.description.platform.architecture = "x86_64".to_owned();
        });
        constraint.parse::<Constraint>().unwrap().is_met_by(&sim.state.nodes[&node_id(1)])
    }

    #[test]
    fn nodes_are_compared_as_swarm_compares_them() {
        for yes in [
            "node.id==node-1",
            "node.id == NODE-1 ",
            "node.hostname!=n2",
            "Node.Role==Worker",
            "node.role!=manager",
            "node.labels.Disk==ssd",
            "NODE.LABELS.Disk != hdd",
            "node.labels.disk!=ssd",
            "node.labels.none!=x",
            "node.platform.os==linux",
            "node.platform.arch==x86_64",
            "node.ip==192.168.77.1",
            "node.ip==192.168.77.0/24",
            "node.ip!=10.0.0.0/8",
        ] {
            assert!(met(yes), "{yes}");
        }
        for no in [
            "node.id==node",
            "node.hostname==n*",
            "node.role==manager",
            "node.labels.disk==ssd",
            "node.labels.none==x",
            "node.labels.Disk!=SSD",
            "node.ip==192.168.78.0/24",
            "node.ip!=192.168.77.1",
        ] {
            assert!(!met(no), "{no}");
        }
    }

    #[test]
    fn what_says_nothing_is_refused_with_swarms_words() {
        let said = |text: &str| text.parse::<Constraint>().unwrap_err().to_string();
        assert_eq!(
            said("node.role=manager"),
            "constraint expected one operator from ==, !=: \"node.role=manager\" has none"
        );
        assert_eq!(said(""), "constraint expected one operator from ==, !=: \"\" has none");
        for key in ["", "1x", "n", "no de", "node.id!=a"] {
            assert_eq!(said(&format!("{key}==x")), format!("key '{key}' is invalid"));
        }
        for value in ["", "a;b", "é", "=x"] {
            assert_eq!(said(&format!("node.id=={value}")), format!("value '{value}' is invalid"));
        }
        assert_eq!(said("node.ip==10.0.0.0/33"), "value '10.0.0.0/33' is invalid");
        for key in ["node.labels.", "node.colour", "engine.labels.os", "disk"] {
            assert!(said(&format!("{key}==x")).starts_with(&format!("key '{key}' says nothing of a node")));
        }
    }
}
