//! `skep network`: overlay networks.

use std::collections::BTreeMap;

use clap::{ArgAction, Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::cli::{InspectArgs, ListArgs};
use crate::client::Client;
use crate::query::{self, Filters, list, text};
use crate::show::{self, Column, Row, natural_order, row, short_id};
use crate::{later, out};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a network
    Create(CreateArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Everything about networks
    Inspect(NetworkInspectArgs),
    /// Remove networks that nothing uses
    #[command(visible_alias = "remove")]
    Rm {
        #[arg(required = true, value_name = "NETWORK")]
        names: Vec<String>,
    },
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// `overlay` is the only one
    #[arg(short, long, default_value = "overlay")]
    driver: String,
    /// Containers that belong to no service may join
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_possible_values = true)]
    attachable: bool,
    /// No way to the outside
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_possible_values = true)]
    internal: bool,
    /// Its addresses (CIDR); without it the cluster picks a free subnet
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    subnet: Vec<String>,
    /// Address of the subnet that is no container's
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Part of the subnet that addresses are given from
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    ip_range: Vec<String>,
    /// Address of the subnet that nobody is given, because it is somebody else's (several allowed)
    #[arg(long, value_name = "NAME=IP")]
    aux_address: Vec<String>,
    /// Option of the driver, as KEY or KEY=VALUE: encrypted=false makes a network that is not
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Label of the network
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    name: String,
}

#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    list: ListArgs,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Args, Debug)]
pub(crate) struct NetworkInspectArgs {
    #[command(flatten)]
    inspect: InspectArgs,
    /// With services and tasks
    #[arg(short, long)]
    verbose: bool,
}

const COLUMNS: [Column; 5] = [
    ("NETWORK ID", "ID"),
    ("NAME", "Name"),
    ("DRIVER", "Driver"),
    ("SCOPE", "Scope"),
    ("ENCRYPTED", "Encrypted"),
];

pub(crate) async fn run(client: &Client, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Create(args) => create(client, &args).await,
        Command::Ls(args) => ls(client, &args).await,
        Command::Inspect(args) => inspect(client, &args).await,
        Command::Rm { names } => rm(client, &names).await,
        Command::Other(words) => later::refuse("network", &words),
    }
}

async fn create(client: &Client, args: &CreateArgs) -> anyhow::Result<u8> {
    let answer = client.post("/networks/create", Some(&create_body(args)?)).await?;
    let warning = text(&answer, "/Warning");
    if !warning.is_empty() {
        eprintln!("WARNING: {warning}");
    }
    out::line(text(&answer, "/Id"))?;
    Ok(0)
}

fn create_body(args: &CreateArgs) -> anyhow::Result<Value> {
    Ok(json!({
        "Driver": args.driver,
        "Scope": "",
        "IPAM": {"Driver": "default", "Options": {}, "Config": ipam(args)?},
        "Internal": args.internal,
        "Attachable": args.attachable,
        "Ingress": false,
        "ConfigOnly": false,
        "ConfigFrom": null,
        "Options": key_values(&args.opt),
        "Labels": key_values(&args.label),
        "Name": args.name,
    }))
}

/// A gateway belongs to the subnet of the same place in the line.
fn ipam(args: &CreateArgs) -> anyhow::Result<Vec<Value>> {
    if args.gateway.len() > args.subnet.len() {
        anyhow::bail!(
            "every --gateway needs a --subnet: name the subnet that {} is of",
            args.gateway.join(", ")
        );
    }
    if args.ip_range.len() > args.subnet.len() {
        anyhow::bail!(
            "every --ip-range needs a --subnet: name the subnet that {} is of",
            args.ip_range.join(", ")
        );
    }
    let reserved = reserved(args)?;
    let config = |(at, subnet): (usize, &String)| {
        let mut config = Map::from_iter([("Subnet".to_owned(), json!(subnet))]);
        if let Some(range) = args.ip_range.get(at) {
            config.insert("IPRange".into(), json!(range));
        }
        if let Some(gateway) = args.gateway.get(at) {
            config.insert("Gateway".into(), json!(gateway));
        }
        // They all belong to the first: the cluster gives a network one subnet.
        if at == 0 && !reserved.is_empty() {
            config.insert("AuxiliaryAddresses".into(), json!(reserved));
        }
        Value::Object(config)
    };
    Ok(args.subnet.iter().enumerate().map(config).collect())
}

fn reserved(args: &CreateArgs) -> anyhow::Result<BTreeMap<&str, &str>> {
    if args.subnet.is_empty() && !args.aux_address.is_empty() {
        anyhow::bail!("--aux-address needs a --subnet: name the subnet its addresses are of");
    }
    let parse = |word| match str::split_once(word, '=') {
        Some((name, addr)) if !name.is_empty() => Ok((name, addr)),
        _ => anyhow::bail!("bad --aux-address \"{word}\": write it as NAME=IP"),
    };
    args.aux_address.iter().map(|word| parse(word.as_str())).collect()
}

/// `KEY=VALUE` words; a bare `KEY` has the empty value, as docker sends it.
pub(crate) fn key_values(words: &[String]) -> BTreeMap<&str, &str> {
    words.iter().map(|word| word.split_once('=').unwrap_or((word, ""))).collect()
}

async fn ls(client: &Client, args: &LsArgs) -> anyhow::Result<u8> {
    let filters = Filters::parse(&args.list.filter)?;
    let networks = client.get(&filters.on("/networks", &[])).await?;
    let mut networks = list(&networks, "").to_vec();
    networks.sort_by(|a, b| natural_order(text(a, "/Name"), text(b, "/Name")));
    let rows: Vec<Row> = networks.iter().map(|network| network_row(network, args.no_trunc)).collect();
    let format = if args.list.quiet { Some("{{.ID}}") } else { args.list.format.as_deref() };
    show::listing(&COLUMNS, &rows, format)?;
    Ok(0)
}

fn network_row(network: &Value, no_trunc: bool) -> Row {
    let id = text(network, "/Id");
    let labels: Vec<String> = network["Labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let flag = |name: &str| json!(network[name].as_bool().unwrap_or_default().to_string());
    row([
        ("CreatedAt", json!(text(network, "/Created"))),
        ("Driver", json!(text(network, "/Driver"))),
        // Empty for what leaves no host.
        ("Encrypted", json!(text(network, "/Options/encrypted"))),
        ("ID", json!(if no_trunc { id.to_owned() } else { short_id(id) })),
        ("IPv6", flag("EnableIPv6")),
        ("Internal", flag("Internal")),
        ("Labels", json!(labels.join(","))),
        ("Name", json!(text(network, "/Name"))),
        ("Scope", json!(text(network, "/Scope"))),
    ])
}

async fn inspect(client: &Client, args: &NetworkInspectArgs) -> anyhow::Result<u8> {
    let (mut networks, mut code) = (Vec::new(), 0);
    for name in &args.inspect.names {
        let path = query::object("networks", name)?;
        let path = if args.verbose { format!("{path}?verbose=true") } else { path };
        match client.get(&path).await {
            Ok(network) => networks.push(network),
            Err(error) => {
                eprintln!("{error}");
                code = 1;
            }
        }
    }
    show::inspection(&networks, args.inspect.format.as_deref())?;
    Ok(code)
}

async fn rm(client: &Client, names: &[String]) -> anyhow::Result<u8> {
    let mut code = 0;
    for name in names {
        match client.delete(&query::object("networks", name)?).await {
            Ok(()) => out::line(name)?,
            Err(error) => {
                eprintln!("{error}");
                code = 1;
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn body(line: &str) -> anyhow::Result<Value> {
        match Cli::try_parse_from(line.split(' '))?.command {
            crate::cli::Command::Network(Command::Create(args)) => create_body(&args),
            other => panic!("{other:?}"),
        }
    }

    /// The bodies the stock CLI 28.2.2 sent for the same commands.
    #[test]
    fn create_sends_what_docker_sends() {
        for (line, docker) in [
            (
                "skep network create -d overlay --attachable backend",
                r#"{"Driver": "overlay", "Scope": "", "IPAM": {"Driver": "default", "Options": {}, "Config": []}, "Internal": false, "Attachable": true, "Ingress": false, "ConfigOnly": false, "ConfigFrom": null, "Options": {}, "Labels": {}, "Name": "backend"}"#,
            ),
            (
                "skep network create -d overlay --opt encrypted --subnet 10.11.0.0/16 enc",
                r#"{"Driver": "overlay", "Scope": "", "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.11.0.0/16"}]}, "Internal": false, "Attachable": false, "Ingress": false, "ConfigOnly": false, "ConfigFrom": null, "Options": {"encrypted": ""}, "Labels": {}, "Name": "enc"}"#,
            ),
        ] {
            assert_eq!(body(line).unwrap(), serde_json::from_str::<Value>(docker).unwrap(), "{line}");
        }
    }

    #[test]
    fn a_row_says_whether_the_network_is_encrypted() {
        let shown =
            |options: Value| network_row(&json!({"Id": "x", "Options": options}), true)["Encrypted"].clone();
        assert_eq!(shown(json!({"encrypted": "true", "x": "y"})), "true");
        assert_eq!(shown(json!({"encrypted": "false"})), "false");
        assert_eq!(shown(json!({"com.docker.network.bridge.name": "skep_gwbridge"})), "");
    }

    #[test]
    fn flags_and_their_forms() {
        let full = body(
            "skep network create --driver overlay --attachable=true --internal --subnet=10.5.0.0/24 --gateway 10.5.0.1 --label a=b=c -o encrypted=false x",
        )
        .unwrap();
        assert_eq!(full["IPAM"]["Config"], json!([{"Subnet": "10.5.0.0/24", "Gateway": "10.5.0.1"}]));
        let parts = body(
            "skep network create --subnet 10.5.0.0/24 --ip-range 10.5.0.64/26 --aux-address a=10.5.0.70 --aux-address b=10.5.0.71 x",
        )
        .unwrap();
        let reserved = json!({"a": "10.5.0.70", "b": "10.5.0.71"});
        let config =
            json!([{"Subnet": "10.5.0.0/24", "IPRange": "10.5.0.64/26", "AuxiliaryAddresses": reserved}]);
        assert_eq!(parts["IPAM"]["Config"], config);
        assert!(body("skep network create --aux-address a=10.5.0.1 x").is_err());
        assert!(body("skep network create --subnet 10.5.0.0/24 --aux-address 10.5.0.1 x").is_err());
        assert_eq!((&full["Internal"], &full["Attachable"]), (&json!(true), &json!(true)));
        assert_eq!(
            (&full["Labels"], &full["Options"]),
            (&json!({"a": "b=c"}), &json!({"encrypted": "false"}))
        );
        assert_eq!(body("skep network create --attachable=false x").unwrap()["Attachable"], false);
        assert!(
            body("skep network create --gateway 10.5.0.1 x").unwrap_err().to_string().contains("--subnet")
        );
    }
}
