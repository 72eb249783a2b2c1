//! `skep service scale`.

use anyhow::{Context, bail};
use clap::{ArgAction, Args};
use serde_json::json;

use super::converge::{self, Progress};
use crate::client::Client;
use crate::out;
use crate::query::{self, number, text};

#[derive(Args, Debug)]
pub(crate) struct ScaleArgs {
    /// Don't wait until the tasks run
    #[arg(short, long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_possible_values = true)]
    detach: bool,
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    scales: Vec<String>,
}

/// Every service is tried; what failed is said and makes the command fail.
pub(super) async fn run(client: &Client, args: &ScaleArgs) -> anyhow::Result<u8> {
    // A slip in the third word must not leave the first two scaled.
    let scales = args.scales.iter().map(|word| parse(word)).collect::<Result<Vec<_>, _>>()?;
    let (mut scaled, mut code) = (Vec::new(), 0);
    for (name, replicas) in scales {
        match scale(client, name, replicas).await {
            Ok(id) => {
                out::line(format!("{name} scaled to {replicas}"))?;
                scaled.push((name, id));
            }
            Err(error) => {
                eprintln!("{name}: {error:#}");
                code = 1;
            }
        }
    }
    if !args.detach {
        for (name, id) in scaled {
            converge::wait(client, &id, name, Progress::for_stdout()).await?;
        }
    }
    Ok(code)
}

fn parse(word: &str) -> anyhow::Result<(&str, u64)> {
    let (name, replicas) =
        word.split_once('=').with_context(|| format!("\"{word}\" is not SERVICE=REPLICAS"))?;
    match replicas.trim().parse() {
        Ok(replicas) => Ok((name, replicas)),
        Err(_) => bail!("{name}: \"{replicas}\" is no number of tasks: 0 or more are"),
    }
}

async fn scale(client: &Client, name: &str, replicas: u64) -> anyhow::Result<String> {
    let service = client.get(&format!("{}?insertDefaults=false", query::object("services", name)?)).await?;
    let mut spec = service["Spec"].clone();
    match spec.pointer_mut("/Mode/Replicated") {
        Some(replicated) if !replicated.is_null() => replicated["Replicas"] = json!(replicas),
        _ => bail!("scale can only be used with replicated mode"),
    }
    let id = text(&service, "/ID").to_owned();
    let path =
        format!("{}/update?version={}", query::object("services", &id)?, number(&service, "/Version/Index"));
    client.post(&path, Some(&spec)).await?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_services_and_numbers() {
        assert_eq!(parse("web=5").unwrap(), ("web", 5));
        assert_eq!(parse("web=0").unwrap(), ("web", 0));
        for bad in ["web", "web=", "web=-1", "web=many", "web=99999999999999999999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
