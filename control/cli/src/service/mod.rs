//! `skep service`.

mod attachment;
mod converge;
mod create;
mod list;
mod logs;
mod placement;
mod ports;
mod publish;
mod scale;
mod task_life;
mod update;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cli::{InspectArgs, ListArgs};
use crate::client::Client;
use crate::query::{self, Filters, text};
use crate::{later, out, show, tasks};

pub(crate) use create::environment;
pub(crate) use ports::ports_text;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a service
    Create(Box<create::CreateArgs>),
    /// List services
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// List the tasks of services, with their history
    Ps(PsArgs),
    /// Everything about services
    Inspect(InspectArgs),
    /// Change a service: its replicas, labels and placement
    Update(update::UpdateArgs),
    /// Change how many tasks services have
    Scale(scale::ScaleArgs),
    /// What the tasks of a service, or one task, wrote
    Logs(logs::LogsArgs),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm {
        #[arg(required = true, value_name = "SERVICE")]
        names: Vec<String>,
    },
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    list: tasks::TaskListArgs,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub(crate) async fn run(client: &Client, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Create(args) => create::run(client, &args).await,
        Command::Ls(args) => list::run(client, &args).await,
        Command::Ps(args) => ps(client, &args).await,
        Command::Inspect(args) => inspect(client, &args).await,
        Command::Update(args) => update::run(client, &args).await,
        Command::Scale(args) => scale::run(client, &args).await,
        Command::Logs(args) => logs::run(client, &args).await,
        Command::Rm { names } => rm(client, &names).await,
        Command::Other(words) => later::refuse("service", &words),
    }
}

/// Tasks of the services that are there; those that aren't are named and make the command fail.
async fn ps(client: &Client, args: &PsArgs) -> anyhow::Result<u8> {
    let mut filters = Filters::parse(&args.list.filter)?;
    let (mut found, mut code) = (false, 0);
    for name in &args.services {
        match client.get(&query::object("services", name)?).await {
            Ok(service) => {
                filters = filters.and("service", text(&service, "/ID"));
                found = true;
            }
            Err(error) => {
                eprintln!("{}", no_such_service(name, error));
                code = 1;
            }
        }
    }
    if found {
        tasks::list(client, &filters, &args.list).await?;
    }
    Ok(code)
}

async fn inspect(client: &Client, args: &InspectArgs) -> anyhow::Result<u8> {
    let (mut services, mut code) = (Vec::<Value>::new(), 0);
    for name in &args.names {
        match client.get(&format!("{}?insertDefaults=true", query::object("services", name)?)).await {
            Ok(service) => services.push(service),
            Err(error) => {
                eprintln!("{}", no_such_service(name, error));
                code = 1;
            }
        }
    }
    show::inspection(&services, args.format.as_deref())?;
    Ok(code)
}

async fn rm(client: &Client, names: &[String]) -> anyhow::Result<u8> {
    let mut code = 0;
    for name in names {
        match client.delete(&query::object("services", name)?).await {
            Ok(()) => out::line(name)?,
            Err(error) => {
                eprintln!("{error}");
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Docker's words for a service that isn't there; any other failure as the daemon put it.
fn no_such_service(name: &str, error: crate::client::Error) -> anyhow::Error {
    if error.is_not_found() { anyhow::anyhow!("no such service: {name}") } else { error.into() }
}
