//! `skep service create`.

use anyhow::bail;
use clap::{ArgAction, Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::attachment::{self, Attachment};
use super::converge::{self, Progress};
use super::placement::PlacementArgs;
use super::publish;
use super::task_life::{LifeArgs, RestartArgs};
use crate::client::Client;
use crate::network::key_values;
use crate::out;
use crate::query::{self, list, text};

#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Its name on its networks; without one the cluster makes one up
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// How many tasks (1)
    #[arg(long, allow_negative_numbers = true)]
    replicas: Option<u64>,
    /// A number of tasks, or one on every host
    #[arg(long, value_parser = parse_mode, default_value = "replicated", value_name = "replicated|global")]
    mode: Mode,
    /// Network to be on, as NAME or name=NAME,alias=ALIAS (several allowed)
    #[arg(long, value_name = "NETWORK")]
    network: Vec<String>,
    /// Port that every host answers on, as PUBLISHED:TARGET (with /udp for UDP) or published=80,target=8080,protocol=tcp
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Environment, as NAME=VALUE, or NAME for this shell's value
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// One virtual address for all tasks, or their own addresses in DNS
    #[arg(long, default_value = "vip")]
    endpoint_mode: EndpointMode,
    #[command(flatten)]
    placement: PlacementArgs,
    /// Label of the service
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Program to run instead of the image's own
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    #[command(flatten)]
    restart: RestartArgs,
    #[command(flatten)]
    life: LifeArgs,
    /// Don't wait until the tasks run
    #[arg(short, long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_possible_values = true)]
    detach: bool,
    /// Wait without saying how it goes
    #[arg(short, long)]
    quiet: bool,
    /// Image (`host`: this host's file system, read-only), then the command; nothing behind the image is a flag
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Replicated,
    Global,
}

fn parse_mode(word: &str) -> Result<Mode, String> {
    match word {
        "replicated" => Ok(Mode::Replicated),
        "global" => Ok(Mode::Global),
        "replicated-job" | "global-job" => Err(format!("{word} isn't there yet; replicated and global are")),
        _ => Err("replicated and global are modes".into()),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EndpointMode {
    Vip,
    Dnsrr,
}

pub(crate) async fn run(client: &Client, args: &CreateArgs) -> anyhow::Result<u8> {
    let attachments =
        args.network.iter().map(|word| attachment::parse(word)).collect::<Result<Vec<_>, _>>()?;
    // All that can be wrong with the words is found before the daemon is asked anything.
    let mut spec = spec(args, &attachments)?;
    let networks = resolve(client, &attachments).await?;
    if !networks.is_empty() {
        spec["TaskTemplate"]["Networks"] = Value::Array(networks);
    }
    let created = client.post("/services/create", Some(&spec)).await?;
    for warning in list(&created, "/Warnings") {
        eprintln!("WARNING: {}", warning.as_str().unwrap_or_default());
    }
    let id = text(&created, "/ID");
    out::line(id)?;
    if !args.detach {
        let progress = if args.quiet { Progress::Quiet } else { Progress::for_stdout() };
        converge::wait(client, id, id, progress).await?;
    }
    Ok(0)
}

/// The spec as docker sends it; `TaskTemplate.Networks` holds a place for the networks.
fn spec(args: &CreateArgs, attachments: &[Attachment]) -> anyhow::Result<Value> {
    let mut ports = Vec::new();
    for word in &args.publish {
        ports.extend(publish::parse(word)?.iter().map(publish::Port::to_json));
    }
    let mut endpoint = Map::from_iter([(
        "Mode".to_owned(),
        json!(match args.endpoint_mode {
            EndpointMode::Vip => "vip",
            EndpointMode::Dnsrr => "dnsrr",
        }),
    )]);
    if !ports.is_empty() {
        endpoint.insert("Ports".into(), Value::Array(ports));
    }
    let mut task = json!({
        "ContainerSpec": container_spec(args)?,
        "Resources": {"Limits": {}, "Reservations": {}},
        "Placement": args.placement.to_json()?,
    });
    if !attachments.is_empty() {
        task["Networks"] = json!([]);
    }
    if args.restart.are_asked() {
        task["RestartPolicy"] = args.restart.lay_over(&Value::Null);
    }
    task["ForceUpdate"] = json!(0);
    Ok(json!({
        "Name": args.name,
        "Labels": key_values(&args.label),
        "TaskTemplate": task,
        "Mode": mode(args)?,
        "EndpointSpec": endpoint,
    }))
}

fn mode(args: &CreateArgs) -> anyhow::Result<Value> {
    Ok(match (args.mode, args.replicas) {
        (Mode::Global, Some(_)) => bail!(
            "replicas can only be used with replicated mode: a global service has one task on every host"
        ),
        (Mode::Global, None) => json!({"Global": {}}),
        (Mode::Replicated, None) => json!({"Replicated": {}}),
        (Mode::Replicated, Some(replicas)) => json!({"Replicated": {"Replicas": replicas}}),
    })
}

fn container_spec(args: &CreateArgs) -> anyhow::Result<Value> {
    let Some((image, command)) = args.image_and_command.split_first() else {
        bail!("which image? `host` is one")
    };
    let mut spec = Map::from_iter([("Image".to_owned(), json!(tagged(image)))]);
    if let Some(entrypoint) = &args.entrypoint {
        // Docker splits it as a shell would; one program without arguments is what can be told apart for sure.
        if entrypoint.split_whitespace().count() != 1 {
            bail!("bad --entrypoint \"{entrypoint}\": name one program; its arguments go behind the image");
        }
        spec.insert("Command".into(), json!([entrypoint]));
    }
    if !command.is_empty() {
        spec.insert("Args".into(), json!(command));
    }
    if !args.env.is_empty() {
        spec.insert("Env".into(), json!(environment(&args.env)?));
    }
    args.life.add_to_container(&mut spec);
    spec.insert("Init".into(), json!(false));
    spec.insert("DNSConfig".into(), json!({}));
    Ok(Value::Object(spec))
}

/// `nginx` means `nginx:latest`.
fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// A bare `NAME` takes this process's value; where there is none it stays bare, which unsets it.
pub(crate) fn environment(words: &[String]) -> anyhow::Result<Vec<String>> {
    words
        .iter()
        .map(|word| match (word.split_once('='), std::env::var(word)) {
            (Some(("", _)), _) => bail!("bad --env \"{word}\": the variable's name is missing"),
            (None, _) if word.is_empty() => bail!("bad --env: the variable's name is missing"),
            (None, Ok(value)) => Ok(format!("{word}={value}")),
            _ => Ok(word.clone()),
        })
        .collect()
}

/// The ids of the networks, in the order they were named: the first is the task's eth0. (Docker sorts them by id.)
async fn resolve(client: &Client, attachments: &[Attachment]) -> anyhow::Result<Vec<Value>> {
    let mut networks = Vec::new();
    for attachment in attachments {
        let path = query::object("networks", &attachment.network)?;
        let network = client.get(&format!("{path}?scope=swarm")).await?;
        let mut config = Map::from_iter([("Target".to_owned(), json!(text(&network, "/Id")))]);
        if !attachment.aliases.is_empty() {
            config.insert("Aliases".into(), json!(attachment.aliases));
        }
        networks.push(Value::Object(config));
    }
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn args(words: &[&str]) -> CreateArgs {
        let line = ["skep", "service", "create"].iter().chain(words);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Service(super::super::Command::Create(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn sent(line: &str) -> Value {
        spec(&args(&line.split(' ').collect::<Vec<_>>()), &[]).unwrap()
    }

    /// The bodies the stock CLI 28.2.2 sent for the same commands, where no registry pinned the image.
    #[test]
    fn create_sends_what_docker_sends() {
        for (line, docker) in [
            (
                "--name dup --replicas 1 nginx",
                r#"{"Name": "dup", "Labels": {}, "TaskTemplate": {"ContainerSpec": {"Image": "nginx:latest", "Init": false, "DNSConfig": {}}, "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {}, "ForceUpdate": 0}, "Mode": {"Replicated": {"Replicas": 1}}, "EndpointSpec": {"Mode": "vip"}}"#,
            ),
            (
                "--name myweb --replicas 2 -p 80:80 nginx",
                r#"{"Name": "myweb", "Labels": {}, "TaskTemplate": {"ContainerSpec": {"Image": "nginx:latest", "Init": false, "DNSConfig": {}}, "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {}, "ForceUpdate": 0}, "Mode": {"Replicated": {"Replicas": 2}}, "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 80, "PublishMode": "ingress"}]}}"#,
            ),
            (
                "--mode global --name glob busybox sleep 1d",
                r#"{"Name": "glob", "Labels": {}, "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest", "Args": ["sleep", "1d"], "Init": false, "DNSConfig": {}}, "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {}, "ForceUpdate": 0}, "Mode": {"Global": {}}, "EndpointSpec": {"Mode": "vip"}}"#,
            ),
        ] {
            // Text, not values: the order of the fields is docker's too.
            let docker: Value = serde_json::from_str(docker).unwrap();
            assert_eq!(sent(line).to_string(), docker.to_string(), "{line}");
        }
    }

    #[test]
    fn nothing_behind_the_image_is_a_flag() {
        let full =
            args(&["--name=x", "-d", "host", "sh", "-c", "echo $HOME", "--name", "y", "--", "-p", "--help"]);
        assert_eq!(full.name, "x");
        assert!(full.detach && full.publish.is_empty());
        let spec = container_spec(&full).unwrap();
        assert_eq!(spec["Image"], "host:latest");
        assert_eq!(spec["Args"], json!(["sh", "-c", "echo $HOME", "--name", "y", "--", "-p", "--help"]));
        let short = args(&["host", "-x", "--replicas", "3"]);
        assert_eq!(
            (short.replicas, &short.image_and_command[1..]),
            (None, &["-x", "--replicas", "3"].map(String::from)[..])
        );
    }

    #[test]
    fn how_tasks_are_restarted_and_stopped_is_sent() {
        let spec = sent(
            "--restart-condition on-failure --restart-delay 1s --restart-max-attempts 3 --restart-window 1m \
             --stop-signal SIGINT --stop-grace-period 1m30s --hostname h -w /srv -u www-data --no-healthcheck host x",
        );
        let task = &spec["TaskTemplate"];
        let policy = json!({"Condition": "on-failure", "Delay": 1_000_000_000_i64, "MaxAttempts": 3, "Window": 60_000_000_000_i64});
        assert_eq!(task["RestartPolicy"], policy);
        let container = json!({
            "Image": "host:latest", "Args": ["x"], "Hostname": "h", "Dir": "/srv", "User": "www-data",
            "StopSignal": "SIGINT", "StopGracePeriod": 90_000_000_000_i64, "Healthcheck": {"Test": ["NONE"]},
            "Init": false, "DNSConfig": {},
        });
        assert_eq!(task["ContainerSpec"], container);
        let policy = json!({"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 2});
        assert_eq!(sent("--restart-max-attempts 2 host x")["TaskTemplate"]["RestartPolicy"], policy);
        for line in [
            "--restart-condition often",
            "--restart-delay -5s",
            "--restart-max-attempts -1",
            "--stop-grace-period 5",
        ] {
            let line = format!("skep service create {line} host x");
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn detach_takes_a_value_as_docker_does() {
        assert!(!args(&["--detach=false", "host"]).detach);
        assert!(args(&["--detach", "host"]).detach);
        assert!(args(&["-dq", "host"]).quiet);
    }

    #[test]
    fn images_get_dockers_default_tag() {
        for (image, tagged_as) in [
            ("host", "host:latest"),
            ("nginx:1.10", "nginx:1.10"),
            ("reg:5000/a/b", "reg:5000/a/b:latest"),
            ("a@sha256:00", "a@sha256:00"),
        ] {
            assert_eq!(tagged(image), tagged_as);
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |words: &[&str]| spec(&args(words), &[]).unwrap_err().to_string();
        assert!(
            refused(&["--mode", "global", "--replicas", "3", "host"]).contains("replicas can only be used")
        );
        assert!(refused(&["-e", "=x", "host"]).contains("name is missing"));
        assert!(refused(&["--entrypoint", "a b", "host"]).contains("one program"));
        let line = ["skep", "service", "create", "--mode", "replicated-job", "host"];
        assert!(Cli::try_parse_from(line).unwrap_err().to_string().contains("isn't there yet"));
    }
}
