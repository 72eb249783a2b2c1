//! `skep service update`: replicas, labels, placement and restart policy.

use anyhow::bail;
use clap::{ArgAction, Args};
use serde_json::{Value, json};

use super::converge::{self, Progress};
use super::placement::PlacementChanges;
use super::task_life::RestartArgs;
use crate::client::Client;
use crate::network::key_values;
use crate::out;
use crate::query::{self, list, number, text};

#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// How many tasks
    #[arg(long, allow_negative_numbers = true)]
    replicas: Option<u64>,
    #[command(flatten)]
    placement: PlacementChanges,
    #[command(flatten)]
    restart: RestartArgs,
    /// Add a label to the service, or give it another value
    #[arg(long, value_name = "KEY=VALUE")]
    label_add: Vec<String>,
    /// Take a label off
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Don't wait until the tasks run
    #[arg(short, long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_possible_values = true)]
    detach: bool,
    /// Wait without saying how it goes
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    service: String,
}

impl UpdateArgs {
    fn asks_for_anything(&self) -> bool {
        let labels = !self.label_add.is_empty() || !self.label_rm.is_empty();
        self.replicas.is_some() || labels || self.placement.are_asked() || self.restart.are_asked()
    }

    /// The spec after the update.
    fn lay_over(&self, mut spec: Value) -> anyhow::Result<Value> {
        if let Some(replicas) = self.replicas {
            match spec.pointer_mut("/Mode/Replicated") {
                Some(replicated) if !replicated.is_null() => replicated["Replicas"] = json!(replicas),
                _ => bail!("replicas can only be used with replicated mode"),
            }
        }
        let mut labels = spec["Labels"].as_object().cloned().unwrap_or_default();
        labels.extend(
            key_values(&self.label_add).into_iter().map(|(key, value)| (key.to_owned(), json!(value))),
        );
        labels.retain(|key, _| !self.label_rm.contains(key));
        spec["Labels"] = Value::Object(labels);
        if self.placement.are_asked() {
            let placement = self.placement.lay_over(&spec["TaskTemplate"]["Placement"])?;
            spec["TaskTemplate"]["Placement"] = placement;
        }
        if self.restart.are_asked() {
            let policy = self.restart.lay_over(&spec["TaskTemplate"]["RestartPolicy"]);
            spec["TaskTemplate"]["RestartPolicy"] = policy;
        }
        Ok(spec)
    }
}

pub(super) async fn run(client: &Client, args: &UpdateArgs) -> anyhow::Result<u8> {
    if !args.asks_for_anything() {
        bail!("nothing to change was named: `skep service update --help` lists what there is");
    }
    let path = query::object("services", &args.service)?;
    let service = client.get(&format!("{path}?insertDefaults=false")).await;
    let service = service.map_err(|error| super::no_such_service(&args.service, error))?;
    let spec = args.lay_over(service["Spec"].clone())?;
    let id = text(&service, "/ID");
    let path =
        format!("{}/update?version={}", query::object("services", id)?, number(&service, "/Version/Index"));
    let answer = client.post(&path, Some(&spec)).await?;
    for warning in list(&answer, "/Warnings") {
        eprintln!("WARNING: {}", warning.as_str().unwrap_or_default());
    }
    out::line(&args.service)?;
    if !args.detach {
        let progress = if args.quiet { Progress::Quiet } else { Progress::for_stdout() };
        converge::wait(client, id, &args.service, progress).await?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn updated(line: &str, spec: Value) -> Result<Value, String> {
        let line = format!("skep service update {line} web");
        let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Service(super::super::Command::Update(args)) => {
                args.lay_over(spec).map_err(|error| error.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_was_named_changes() {
        let spec = json!({
            "Name": "web", "Labels": {"a": "1", "b": "2"}, "TaskTemplate": {"Placement": {}, "Kept": [1]},
            "Mode": {"Replicated": {"Replicas": 1}},
        });
        let line = "--replicas 3 --label-add c=3 --label-rm a --constraint-add node.role==worker";
        let expected = json!({
            "Name": "web", "Labels": {"b": "2", "c": "3"},
            "TaskTemplate": {
                "Placement": {"Constraints": ["node.role==worker"], "Preferences": []}, "Kept": [1],
            },
            "Mode": {"Replicated": {"Replicas": 3}},
        });
        assert_eq!(updated(line, spec.clone()), Ok(expected));
        let policy = json!({"Condition": "on-failure", "Delay": 1});
        let restart = updated("--restart-max-attempts 3", json!({"TaskTemplate": {"RestartPolicy": policy}}));
        let expected = json!({"Condition": "on-failure", "Delay": 1, "MaxAttempts": 3});
        assert_eq!(restart.unwrap()["TaskTemplate"]["RestartPolicy"], expected);
        assert_eq!(updated("", spec.clone()), Ok(spec));
        let global = json!({"Mode": {"Global": {}}});
        assert!(updated("--replicas 3", global).unwrap_err().contains("only be used with replicated mode"));
    }
}
