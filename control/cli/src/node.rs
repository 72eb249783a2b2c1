//! `skep node`: the cluster's hosts.

mod pretty;

use anyhow::bail;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::{InspectArgs, ListArgs};
use crate::client::Client;
use crate::network::key_values;
use crate::query::{self, Filters, number, text};
use crate::show::{self, Column, Row, capitalized, natural_order, row};
use crate::swarm::{Availability, Role};
use crate::{later, out, tasks};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the hosts
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Everything about hosts; `self` is this one
    Inspect(NodeInspectArgs),
    /// List the tasks on hosts
    Ps(PsArgs),
    /// Change a host's availability and labels
    Update(UpdateArgs),
    /// Make workers managers
    Promote(NodeArgs),
    /// Make managers workers
    Demote(NodeArgs),
    /// Remove hosts from the cluster
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Args, Debug)]
pub(crate) struct NodeInspectArgs {
    #[command(flatten)]
    inspect: InspectArgs,
    /// For people, with the state of the data path
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    pub(crate) list: tasks::TaskListArgs,
    /// Names or ids; this one if there is none
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// active: takes tasks; pause: keeps those it has; drain: its tasks move to other hosts
    #[arg(long)]
    availability: Option<Availability>,
    /// Add a label, or give it another value
    #[arg(long, value_name = "KEY[=VALUE]")]
    label_add: Vec<String>,
    /// Take a label off
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// What the host is in the cluster
    #[arg(long)]
    role: Option<Role>,
    #[arg(value_name = "NODE")]
    node: String,
}

#[derive(Args, Debug)]
pub(crate) struct NodeArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Also hosts that are not down
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

const COLUMNS: [Column; 6] = [
    ("ID", "Marked"),
    ("HOSTNAME", "Hostname"),
    ("STATUS", "Status"),
    ("AVAILABILITY", "Availability"),
    ("MANAGER STATUS", "ManagerStatus"),
    ("ENGINE VERSION", "EngineVersion"),
];

pub(crate) async fn run(client: &Client, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Ls(args) => ls(client, &args).await,
        Command::Inspect(args) => inspect(client, &args).await,
        Command::Ps(args) => ps(client, &args).await,
        Command::Update(args) => update(client, &args).await,
        Command::Promote(args) => {
            each(&args.nodes, async |name| set_role(client, name, Role::Manager).await).await
        }
        Command::Demote(args) => {
            each(&args.nodes, async |name| set_role(client, name, Role::Worker).await).await
        }
        Command::Rm(args) => each(&args.nodes, async |name| rm(client, name, args.force).await).await,
        Command::Other(words) => later::refuse("node", &words),
    }
}

async fn ls(client: &Client, args: &ListArgs) -> anyhow::Result<u8> {
    let filters = Filters::parse(&args.filter)?;
    let nodes = client.get(&filters.on("/nodes", &[])).await?;
    if args.quiet {
        for node in query::list(&nodes, "") {
            out::line(text(node, "/ID"))?;
        }
        return Ok(0);
    }
    let info = client.get("/info").await?;
    let mut nodes = query::list(&nodes, "").to_vec();
    nodes.sort_by(|a, b| natural_order(text(a, "/Description/Hostname"), text(b, "/Description/Hostname")));
    let rows: Vec<Row> = nodes.iter().map(|node| node_row(node, text(&info, "/Swarm/NodeID"))).collect();
    print(rows, args.format.as_deref())?;
    Ok(0)
}

/// The table marks this host behind its id; in every other form the id is the id.
fn print(mut rows: Vec<Row>, format: Option<&str>) -> anyhow::Result<()> {
    if format.is_none_or(|format| format.trim() == "table") {
        for row in &mut rows {
            let mark = if row["Self"] == true { " *" } else { "" };
            let id = row["ID"].as_str().unwrap_or_default();
            row.insert("Marked".into(), json!(format!("{id}{mark}")));
        }
    }
    show::listing(&COLUMNS, &rows, format)
}

fn node_row(node: &Value, own_id: &str) -> Row {
    let manager = match node.get("ManagerStatus").filter(|status| !status.is_null()) {
        None => String::new(),
        Some(status) if status["Leader"] == true => "Leader".to_owned(),
        Some(status) => capitalized(text(status, "/Reachability")),
    };
    let tls = if node.pointer("/Description/TLSInfo").is_some_and(|tls| !tls.is_null()) {
        "Ready"
    } else {
        "Unknown"
    };
    row([
        ("ID", json!(text(node, "/ID"))),
        ("Self", json!(text(node, "/ID") == own_id)),
        ("Hostname", json!(text(node, "/Description/Hostname"))),
        ("Status", json!(capitalized(text(node, "/Status/State")))),
        ("Availability", json!(capitalized(text(node, "/Spec/Availability")))),
        ("ManagerStatus", json!(manager)),
        ("EngineVersion", json!(text(node, "/Description/Engine/EngineVersion"))),
        ("TLSStatus", json!(tls)),
    ])
}

async fn inspect(client: &Client, args: &NodeInspectArgs) -> anyhow::Result<u8> {
    let (mut nodes, mut code) = (Vec::new(), 0);
    for name in &args.inspect.names {
        match node(client, name).await {
            Ok(node) => nodes.push(node),
            Err(error) => {
                eprintln!("{error:#}");
                code = 1;
            }
        }
    }
    if args.pretty {
        let now = Timestamp::now();
        let pages: Vec<String> = nodes.iter().map(|node| pretty::node(node, now)).collect();
        out::raw(pages.join("\n"))?;
        return Ok(code);
    }
    show::inspection(&nodes, args.inspect.format.as_deref())?;
    Ok(code)
}

/// A node by its id, hostname, or `self`.
async fn node(client: &Client, name: &str) -> anyhow::Result<Value> {
    let own_id;
    let mut name = name;
    if name == "self" {
        own_id = text(&client.get("/info").await?, "/Swarm/NodeID").to_owned();
        if own_id.is_empty() {
            bail!("this host is in no cluster: `skep swarm init` makes one, `skep swarm join` joins one");
        }
        name = &own_id;
    }
    Ok(client.get(&query::object("nodes", name)?).await?)
}

async fn ps(client: &Client, args: &PsArgs) -> anyhow::Result<u8> {
    let names = if args.nodes.is_empty() { vec!["self".to_owned()] } else { args.nodes.clone() };
    let mut filters = Filters::parse(&args.list.filter)?;
    for name in &names {
        filters = filters.and("node", text(&node(client, name).await?, "/ID"));
    }
    tasks::list(client, &filters, &args.list).await?;
    Ok(0)
}

async fn update(client: &Client, args: &UpdateArgs) -> anyhow::Result<u8> {
    let node = node(client, &args.node).await?;
    let mut spec = node["Spec"].clone();
    if let Some(availability) = args.availability {
        spec["Availability"] = json!(availability.name());
    }
    if let Some(role) = args.role {
        spec["Role"] = json!(role.name());
    }
    let mut labels = spec["Labels"].as_object().cloned().unwrap_or_default();
    for (key, value) in key_values(&args.label_add) {
        if key.is_empty() {
            bail!("bad --label-add \"={value}\": a label needs a name, as in KEY or KEY=VALUE");
        }
        labels.insert(key.to_owned(), json!(value));
    }
    for key in &args.label_rm {
        if labels.remove(key).is_none() {
            bail!("key {key} doesn't exist in node's labels");
        }
    }
    spec["Labels"] = Value::Object(labels);
    change(client, &node, &spec).await?;
    out::line(&args.node)?;
    Ok(0)
}

/// Changes a node as it was read.
async fn change(client: &Client, read: &Value, spec: &Value) -> anyhow::Result<()> {
    let path = query::object("nodes", text(read, "/ID"))?;
    client.post(&format!("{path}/update?version={}", number(read, "/Version/Index")), Some(spec)).await?;
    Ok(())
}

async fn set_role(client: &Client, name: &str, role: Role) -> anyhow::Result<()> {
    let node = node(client, name).await?;
    let mut spec = node["Spec"].clone();
    if text(&spec, "/Role") == role.name() {
        return Ok(out::line(format!("Node {name} is already a {}.", role.name()))?);
    }
    spec["Role"] = json!(role.name());
    change(client, &node, &spec).await?;
    Ok(out::line(match role {
        Role::Manager => format!("Node {name} promoted to a manager in the swarm."),
        Role::Worker => format!("Manager {name} demoted in the swarm."),
    })?)
}

async fn rm(client: &Client, name: &str, force: bool) -> anyhow::Result<()> {
    let path = match name {
        "self" => query::object("nodes", text(&node(client, name).await?, "/ID"))?,
        _ => query::object("nodes", name)?,
    };
    client.delete(&if force { format!("{path}?force=1") } else { path }).await?;
    Ok(out::line(name)?)
}

/// Every name is tried; what failed is said and makes the command fail.
async fn each(names: &[String], act: impl AsyncFn(&str) -> anyhow::Result<()>) -> anyhow::Result<u8> {
    let mut code = 0;
    for name in names {
        if let Err(error) = act(name).await {
            eprintln!("{error:#}");
            code = 1;
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_dockers_fields_and_the_table_marks_this_host() {
        let node = json!({
            "ID": "82ow5r7j1e4sc7u1axaidc76z",
            "Spec": {"Role": "manager", "Availability": "active"},
            "Description": {"Hostname": "node-1", "Engine": {"EngineVersion": "28.2.2"}, "TLSInfo": {"TrustRoot": "x"}},
            "Status": {"State": "ready", "Addr": "192.0.2.10"},
            "ManagerStatus": {"Reachability": "reachable", "Leader": true},
        });
        let docker = r#"{"Availability":"Active","EngineVersion":"28.2.2","Hostname":"node-1","ID":"82ow5r7j1e4sc7u1axaidc76z","ManagerStatus":"Leader","Self":true,"Status":"Ready","TLSStatus":"Ready"}"#;
        let row = node_row(&node, "82ow5r7j1e4sc7u1axaidc76z");
        assert_eq!(Value::Object(row).to_string(), docker);
        let worker = node_row(&json!({"ID": "x", "ManagerStatus": null}), "y");
        assert_eq!((&worker["ManagerStatus"], &worker["Self"]), (&json!(""), &json!(false)));
    }
}
