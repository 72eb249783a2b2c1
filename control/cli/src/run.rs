//! `skep run`: one command in a container on a network, its output and exit status passed on.

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::signal::unix::{SignalKind, signal};

use crate::EXIT_USAGE;
use crate::client::{Client, Error};
use crate::mux::{self, Demux};
use crate::query::{encode, list, text};
use crate::service::environment;

/// What a shell exits with when a command can't be executed, and when there is none of that name; docker's too.
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NO_COMMAND: u8 = 127;

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Remove the container when it ends (without it isn't there yet)
    #[arg(long)]
    rm: bool,
    /// Network to be on; it must be attachable (several allowed: eth0, eth1…)
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Its name on the network
    #[arg(long)]
    name: Option<String>,
    /// Environment, as NAME=VALUE, or NAME for this shell's value
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Pass this command's input on
    #[arg(short, long)]
    interactive: bool,
    /// Image (`host`: this host's file system, read-only), then the command; nothing behind the image is a flag
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,
}

/// Docker's exit codes for a `run` whose process never was.
pub(crate) fn exit_code_of(error: &anyhow::Error) -> u8 {
    let Some(Error::Daemon { message, .. }) = error.downcast_ref::<Error>() else { return EXIT_USAGE };
    let message = message.to_lowercase();
    if message.contains("permission denied") || message.contains("is a directory") {
        EXIT_NOT_EXECUTABLE
    } else if ["no such command", "executable file not found", "no such file or directory"]
        .iter()
        .any(|why| message.contains(why))
    {
        EXIT_NO_COMMAND
    } else {
        EXIT_USAGE
    }
}

pub(crate) async fn run(client: &Client, args: RunArgs) -> anyhow::Result<u8> {
    let body = create_body(&args)?;
    let path = match &args.name {
        Some(name) => format!("/containers/create?name={}", encode(name)),
        None => "/containers/create".to_owned(),
    };
    let created = client.post(&path, Some(&body)).await?;
    for warning in list(&created, "/Warnings") {
        eprintln!("WARNING: {}", warning.as_str().unwrap_or_default());
    }
    let container = format!("/containers/{}", encode(text(&created, "/Id")));
    // In this order no output and no exit is missed, however short the process lives.
    let stdin = if args.interactive { "&stdin=1" } else { "" };
    let connection = client.hijack(&format!("{container}/attach?stderr=1{stdin}&stdout=1&stream=1")).await?;
    let exit = client.stream(Method::POST, &format!("{container}/wait?condition=removed")).await?;
    client.post(&format!("{container}/start"), None).await?;
    let (output, input) = tokio::io::split(connection);
    if args.interactive {
        tokio::spawn(pass_in(input));
    }
    let passed = async {
        pass_out(output).await?;
        exit_status(exit.into_body()).await
    };
    tokio::select! {
        code = passed => code,
        error = forward_signals(client, &container) => Err(error),
    }
}

fn create_body(args: &RunArgs) -> anyhow::Result<Value> {
    let Some((image, command)) = args.image_and_command.split_first() else {
        bail!("which image? `host` is one")
    };
    let Some((network, further)) = args.network.split_first() else {
        bail!(
            "which network? Name an attachable one with --network: a container without one isn't there yet"
        );
    };
    if !args.rm {
        bail!("`skep run` without --rm isn't there yet: nothing could list or remove the ended container");
    }
    let mut body = Map::new();
    body.insert("AttachStdin".into(), json!(args.interactive));
    body.insert("AttachStdout".into(), json!(true));
    body.insert("AttachStderr".into(), json!(true));
    body.insert("Tty".into(), json!(false));
    body.insert("OpenStdin".into(), json!(args.interactive));
    body.insert("StdinOnce".into(), json!(args.interactive));
    body.insert("Env".into(), json!(environment(&args.env)?));
    body.insert("Cmd".into(), json!(command));
    body.insert("Image".into(), json!(image));
    body.insert("HostConfig".into(), json!({"NetworkMode": network, "AutoRemove": true}));
    let endpoints: Map<String, Value> = further.iter().map(|name| (name.clone(), json!({}))).collect();
    body.insert("NetworkingConfig".into(), json!({"EndpointsConfig": endpoints}));
    Ok(Value::Object(body))
}

/// The end of our input is the end of the container's. A container that reads none is no failure: its end tells.
async fn pass_in(mut input: WriteHalf<TokioIo<Upgraded>>) {
    let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut input).await;
    let _ = input.shutdown().await;
}

async fn pass_out(mut output: ReadHalf<TokioIo<Upgraded>>) -> anyhow::Result<()> {
    let (mut demux, mut buffer) = (Demux::default(), vec![0; 64 << 10]);
    loop {
        let len = output.read(&mut buffer).await.context("the container's output broke off")?;
        if len == 0 {
            return Ok(demux.finish()?);
        }
        demux.push(&buffer[..len]);
        while let Some((stream, bytes)) = demux.next()? {
            mux::write(stream, &bytes)?;
        }
    }
}

/// The answer to `/wait`: it is under way from before the start and ends with the container.
async fn exit_status(body: Incoming) -> anyhow::Result<u8> {
    let bytes = body.collect().await.context("the daemon broke off while the container ran")?.to_bytes();
    let answer: Value =
        serde_json::from_slice(&bytes).context("the daemon didn't say how the container ended")?;
    let error = text(&answer, "/Error/Message");
    if !error.is_empty() {
        bail!("{error}");
    }
    let status = answer["StatusCode"].as_u64().context("the daemon didn't say how the container ended")?;
    // A status is eight bits wide; what doesn't fit is a failure all the same.
    Ok(u8::try_from(status).unwrap_or(EXIT_USAGE))
}

/// A process that is its container's pid 1 ignores signals it has no handler for; who repeats ^C means it.
const INTERRUPTS_THAT_KILL: u32 = 3;

/// ^C and a polite kill are the container's to handle; its end ends us. Only returns where that isn't possible.
async fn forward_signals(client: &Client, container: &str) -> anyhow::Error {
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(error), _) | (_, Err(error)) => return error.into(),
        };
    let mut interrupts = 0;
    loop {
        let name = tokio::select! {
            _ = interrupt.recv() => {
                interrupts += 1;
                if interrupts < INTERRUPTS_THAT_KILL { "SIGINT" } else { "SIGKILL" }
            }
            _ = terminate.recv() => "SIGTERM",
        };
        match client.post(&format!("{container}/kill?signal={name}"), None).await {
            Ok(_) => {}
            // It ended by itself meanwhile; how is on its way.
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return anyhow::Error::new(error).context("the container can't be signalled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use hyper::StatusCode;

    fn args(line: &str) -> RunArgs {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    /// The fields that are set in what the stock CLI 28.2.2 sent for `run --rm --network backend host echo hi`; the
    /// hundred others hold the zero value, which leaving out says too.
    #[test]
    fn the_container_is_described_as_docker_describes_it() {
        let body = create_body(&args("skep run --rm --network backend host echo hi -n")).unwrap();
        let docker = json!({
            "AttachStdin": false, "AttachStdout": true, "AttachStderr": true, "Tty": false, "OpenStdin": false,
            "StdinOnce": false, "Env": [], "Cmd": ["echo", "hi", "-n"], "Image": "host",
            "HostConfig": {"NetworkMode": "backend", "AutoRemove": true}, "NetworkingConfig": {"EndpointsConfig": {}},
        });
        assert_eq!(body, docker);
    }

    #[test]
    fn every_network_is_sent() {
        let body = create_body(&args("skep run --rm --network front --network back host true")).unwrap();
        assert_eq!(body["HostConfig"]["NetworkMode"], "front");
        assert_eq!(body["NetworkingConfig"]["EndpointsConfig"], json!({"back": {}}));
    }

    #[test]
    fn what_is_not_there_yet_is_said() {
        let said = |line| create_body(&args(line)).unwrap_err().to_string();
        assert!(said("skep run --rm host true").contains("--network"));
        assert!(said("skep run --network backend host true").contains("--rm"));
    }

    #[test]
    fn exit_codes_are_dockers() {
        let daemon =
            |message: &str| Error::Daemon { status: StatusCode::BAD_REQUEST, message: message.into() }.into();
        assert_eq!(exit_code_of(&daemon("cannot start the container: no such command: nope")), 127);
        assert_eq!(exit_code_of(&daemon("exec: \"nope\": executable file not found in $PATH")), 127);
        assert_eq!(exit_code_of(&daemon("exec /etc: permission denied")), 126);
        assert_eq!(exit_code_of(&daemon("network x not found")), 125);
        assert_eq!(exit_code_of(&anyhow::anyhow!("anything")), 125);
    }
}
