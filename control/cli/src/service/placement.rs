//! Where a service's tasks go, as flags.

use anyhow::bail;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::query::list;

#[derive(Args, Debug, Default)]
pub(crate) struct PlacementArgs {
    /// What a host has to be: node.id, node.hostname, node.role, node.ip, node.platform.os, node.platform.arch or node.labels.KEY, == or !=, and a value (several allowed)
    #[arg(long, value_name = "CONSTRAINT")]
    constraint: Vec<String>,
    /// Spread over the values of a host's label first, as spread=node.labels.KEY (several allowed)
    #[arg(long, value_name = "spread=LABEL")]
    placement_pref: Vec<String>,
    /// How many tasks of the service one host takes at most; 0: any number
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    replicas_max_per_node: u64,
}

impl PlacementArgs {
    /// `TaskTemplate.Placement` as docker sends it.
    pub(super) fn to_json(&self) -> anyhow::Result<Value> {
        let mut placement = Map::new();
        if !self.constraint.is_empty() {
            placement.insert("Constraints".into(), json!(self.constraint));
        }
        if !self.placement_pref.is_empty() {
            let preferences: Vec<Value> =
                self.placement_pref.iter().map(|word| preference(word)).collect::<Result<_, _>>()?;
            placement.insert("Preferences".into(), Value::Array(preferences));
        }
        if self.replicas_max_per_node > 0 {
            placement.insert("MaxReplicas".into(), json!(self.replicas_max_per_node));
        }
        Ok(Value::Object(placement))
    }
}

/// Changes to a service's placement.
#[derive(Args, Debug, Default)]
pub(crate) struct PlacementChanges {
    /// Add a constraint: tasks on hosts that don't meet it move
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_add: Vec<String>,
    /// Take a constraint off
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_rm: Vec<String>,
    /// Add a placement preference, for tasks to come
    #[arg(long, value_name = "spread=LABEL")]
    placement_pref_add: Vec<String>,
    /// Take a placement preference off
    #[arg(long, value_name = "spread=LABEL")]
    placement_pref_rm: Vec<String>,
    /// How many tasks of the service one host takes at most; 0: any number
    #[arg(long, value_name = "NUMBER")]
    replicas_max_per_node: Option<u64>,
}

impl PlacementChanges {
    pub(super) fn are_asked(&self) -> bool {
        let lists =
            [&self.constraint_add, &self.constraint_rm, &self.placement_pref_add, &self.placement_pref_rm];
        lists.iter().any(|list| !list.is_empty()) || self.replicas_max_per_node.is_some()
    }

    /// The placement a service has after them.
    pub(super) fn lay_over(&self, placement: &Value) -> anyhow::Result<Value> {
        let words = |words: &[String]| words.iter().map(|word| json!(word)).collect::<Vec<_>>();
        let preferences =
            |words: &[String]| words.iter().map(|word| preference(word)).collect::<Result<Vec<_>, _>>();
        let mut changed = placement.as_object().cloned().unwrap_or_default();
        let constraints = changed_list(
            list(placement, "/Constraints"),
            &words(&self.constraint_add),
            &words(&self.constraint_rm),
        )?;
        changed.insert("Constraints".into(), Value::Array(constraints));
        let preferences = changed_list(
            list(placement, "/Preferences"),
            &preferences(&self.placement_pref_add)?,
            &preferences(&self.placement_pref_rm)?,
        )?;
        changed.insert("Preferences".into(), Value::Array(preferences));
        if let Some(max) = self.replicas_max_per_node {
            changed.insert("MaxReplicas".into(), json!(max));
        }
        Ok(Value::Object(changed))
    }
}

fn changed_list(old: &[Value], add: &[Value], rm: &[Value]) -> anyhow::Result<Vec<Value>> {
    let mut changed = old.to_vec();
    changed.extend(add.iter().filter(|new| !old.contains(new)).cloned());
    for gone in rm {
        if !changed.contains(gone) {
            let gone = gone.pointer("/Spread/SpreadDescriptor").unwrap_or(gone);
            bail!("the service has no {gone} to take off: `skep service inspect` shows what it has");
        }
        changed.retain(|value| value != gone);
    }
    Ok(changed)
}

/// `spread=node.labels.zone`
fn preference(word: &str) -> anyhow::Result<Value> {
    match word.split_once('=') {
        Some((strategy, label)) if strategy.trim().eq_ignore_ascii_case("spread") => {
            Ok(json!({"Spread": {"SpreadDescriptor": label.trim()}}))
        }
        Some((strategy, _)) => bail!("unsupported preference: {strategy} (only spread is supported)"),
        None => bail!("bad placement preference \"{word}\": write it as spread=node.labels.KEY"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(constraint_add: &[&str], constraint_rm: &[&str]) -> PlacementChanges {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        PlacementChanges {
            constraint_add: words(constraint_add),
            constraint_rm: words(constraint_rm),
            ..PlacementChanges::default()
        }
    }

    /// The body the stock CLI 28.2.2 sent.
    #[test]
    fn create_sends_what_docker_sends() {
        let args = PlacementArgs {
            constraint: vec!["node.role==worker".to_owned()],
            placement_pref: vec!["spread=node.labels.dc".to_owned()],
            replicas_max_per_node: 0,
        };
        let docker = json!({
            "Constraints": ["node.role==worker"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.dc"}}],
        });
        assert_eq!(args.to_json().unwrap(), docker);
        assert_eq!(PlacementArgs::default().to_json().unwrap(), json!({}));
        assert!(preference("binpack=cpu").unwrap_err().to_string().contains("only spread"));
        assert!(preference("spread").unwrap_err().to_string().contains("write it as"));
    }

    #[test]
    fn constraints_are_added_once_and_taken_off_if_they_are_there() {
        let old = json!({"Constraints": ["a==1", "b==2"], "Platforms": ["kept"]});
        let new = changes(&["c==3", "a==1"], &["b==2"]).lay_over(&old).unwrap();
        assert_eq!(new, json!({"Constraints": ["a==1", "c==3"], "Preferences": [], "Platforms": ["kept"]}));
        let refused = changes(&[], &["d==4"]).lay_over(&old).unwrap_err().to_string();
        assert!(refused.starts_with("the service has no \"d==4\" to take off"), "{refused}");
        assert!(changes(&["x==1"], &[]).lay_over(&Value::Null).is_ok());
    }
}
