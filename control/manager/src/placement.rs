//! Which nodes a task may go to, and which of them it had better go to.

mod constraint;
#[cfg(test)]
mod tests;

pub(crate) use constraint::{Constraint, ConstraintError};

use skep_model::node::Node;
use skep_model::service::{self, TaskSpec};

/// Each is looked at for every node whenever a task waits.
const MAX_CONSTRAINTS: usize = 64;
const MAX_PREFERENCES: usize = 8;
const NODE_LABEL: &str = "node.labels.";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlacementError {
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    #[error(
        "a service can have {MAX_CONSTRAINTS} constraints and {MAX_PREFERENCES} placement preferences at most"
    )]
    TooMany,
    #[error(
        "placement preference \"{0}\" cannot be followed: tasks spread over the values of a node.labels.KEY"
    )]
    Preference(String),
}

/// A service's `Placement`, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    constraints: Vec<Constraint>,
    /// Node labels over whose values tasks spread, the first one first.
    spread: Vec<String>,
    /// Tasks of one service that a node takes at most.
    pub(crate) max_per_node: Option<usize>,
    /// It was stored and cannot be read: nothing is known of where the task may go.
    unreadable: bool,
}

impl Placement {
    pub(crate) fn of(spec: &TaskSpec) -> Result<Self, PlacementError> {
        spec.placement.as_ref().map_or(Ok(Self::default()), Self::read)
    }

    /// The API refuses what cannot be read, so that only damaged objects have no place at all.
    pub(crate) fn of_or_nowhere(spec: &TaskSpec) -> Self {
        Self::of(spec).unwrap_or(Self { unreadable: true, ..Self::default() })
    }

    fn read(placement: &service::Placement) -> Result<Self, PlacementError> {
        if placement.constraints.len() > MAX_CONSTRAINTS || placement.preferences.len() > MAX_PREFERENCES {
            return Err(PlacementError::TooMany);
        }
        let constraints = placement.constraints.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let spread = placement.preferences.iter().map(spread_label).collect::<Result<_, _>>()?;
        let max_per_node = Some(placement.max_replicas).filter(|max| *max > 0);
        let max_per_node = max_per_node.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        Ok(Self { constraints, spread, max_per_node, unreadable: false })
    }

    /// Whether the node meets the constraints.
    pub(crate) fn allows(&self, node: &Node) -> bool {
        !self.unreadable && self.constraints.iter().all(|constraint| constraint.is_met_by(node))
    }

    /// The groups a node is in, from the widest to the narrowest. Nodes without a label are a group too.
    pub(crate) fn groups<'n>(&self, node: &'n Node) -> Vec<&'n str> {
        let value = |label: &String| node.spec.labels.get(label).map_or("", String::as_str);
        self.spread.iter().map(value).collect()
    }
}

fn spread_label(preference: &service::PlacementPreference) -> Result<String, PlacementError> {
    let descriptor = preference.spread.as_ref().map_or("", |spread| spread.spread_descriptor.as_str());
    let prefix = descriptor.get(..NODE_LABEL.len()).filter(|prefix| prefix.eq_ignore_ascii_case(NODE_LABEL));
    match prefix.map(|prefix| &descriptor[prefix.len()..]) {
        Some(label) if !label.is_empty() => Ok(label.to_owned()),
        _ => Err(PlacementError::Preference(descriptor.to_owned())),
    }
}
