//! `skep run`: one command in a container on a network, its output and exit status passed on.

use std::future::pending;

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
use crate::mux::{self, Demux, Stream};
use crate::query::{encode, list, text};
use crate::service::environment;
use crate::terminal::{self, Raw};

/// What a shell exits with when a command can't be executed, and when there is none of that name; docker's too.
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NO_COMMAND: u8 = 127;

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Remove the container when it ends
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
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Print its id and leave it running; its output goes to its log
    #[arg(short, long)]
    detach: bool,
    /// Program to run, before the command
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Where the command starts
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    /// Whom the command runs as, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Host name within it
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// What asks it to end, by name or number (SIGTERM)
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds it may take to end before it is killed (10)
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    stop_timeout: Option<i64>,
    /// Image (`host`: this host's file system, read-only), then the command; nothing behind the image is a flag
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,
}

/// Docker's exit codes for a `run` whose process never was.
pub(crate) fn exit_code_of(error: &anyhow::Error) -> u8 {
    let Some(Error::Daemon { message, .. }) = error.downcast_ref::<Error>() else { return EXIT_USAGE };
    // The very words the stock CLI looks for.
    if message.contains("permission denied") || message.contains("is a directory") {
        EXIT_NOT_EXECUTABLE
    } else if ["executable file not found", "no such file or directory"]
        .iter()
        .any(|why| message.contains(why))
    {
        EXIT_NO_COMMAND
    } else {
        EXIT_USAGE
    }
}

pub(crate) async fn run(client: &Client, args: RunArgs) -> anyhow::Result<u8> {
    // Docker's words. With -d nobody's terminal is taken.
    if args.interactive && args.tty && !args.detach && !terminal::is_input() {
        bail!("the input device is not a TTY");
    }
    let body = create_body(&args)?;
    let path = match &args.name {
        Some(name) => format!("/containers/create?name={}", encode(name)),
        None => "/containers/create".to_owned(),
    };
    let created = client.post(&path, Some(&body)).await?;
    for warning in list(&created, "/Warnings") {
        eprintln!("WARNING: {}", warning.as_str().unwrap_or_default());
    }
    let id = text(&created, "/Id");
    let container = format!("/containers/{}", encode(id));
    if args.detach {
        client.post(&format!("{container}/start"), None).await?;
        crate::out::line(id)?;
        return Ok(0);
    }
    // In this order no output and no exit is missed, however short the process lives.
    let stdin = if args.interactive { "&stdin=1" } else { "" };
    let connection = client.hijack(&format!("{container}/attach?stderr=1{stdin}&stdout=1&stream=1")).await?;
    let condition = if args.rm { "removed" } else { "next-exit" };
    let exit = client.stream(Method::POST, &format!("{container}/wait?condition={condition}")).await?;
    client.post(&format!("{container}/start"), None).await?;
    let (output, input) = tokio::io::split(connection);
    let raw = if args.tty && args.interactive { Raw::new()? } else { None };
    if args.interactive {
        tokio::spawn(pass_in(input));
    }
    let passed = async {
        match args.tty {
            true => pass_terminal(output).await?,
            false => pass_out(output).await?,
        }
        exit_status(exit.into_body()).await
    };
    let ended = tokio::select! {
        code = passed => code,
        code = hang_up(), if raw.is_some() => code,
        error = forward_signals(client, &container), if raw.is_none() => Err(error),
        error = forward_size(client, &container), if args.tty => Err(error),
    };
    // Before anything is said about how it ended.
    drop(raw);
    ended
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
    let attached_input = args.interactive && !args.detach;
    let mut body = Map::new();
    body.insert("AttachStdin".into(), json!(attached_input));
    body.insert("AttachStdout".into(), json!(!args.detach));
    body.insert("AttachStderr".into(), json!(!args.detach));
    body.insert("Tty".into(), json!(args.tty));
    body.insert("OpenStdin".into(), json!(args.interactive));
    body.insert("StdinOnce".into(), json!(attached_input));
    if let Some(entrypoint) = &args.entrypoint {
        body.insert("Entrypoint".into(), json!([entrypoint]));
    }
    let texts = [
        ("WorkingDir", &args.workdir),
        ("User", &args.user),
        ("Hostname", &args.hostname),
        ("StopSignal", &args.stop_signal),
    ];
    for (field, value) in texts {
        if let Some(value) = value {
            body.insert(field.into(), json!(value));
        }
    }
    if let Some(seconds) = args.stop_timeout {
        body.insert("StopTimeout".into(), json!(seconds));
    }
    body.insert("Env".into(), json!(environment(&args.env)?));
    body.insert("Cmd".into(), json!(command));
    body.insert("Image".into(), json!(image));
    let mut host = json!({"NetworkMode": network, "AutoRemove": args.rm});
    if let Some((rows, columns)) = terminal::size().filter(|_| args.tty) {
        host["ConsoleSize"] = json!([rows, columns]);
    }
    body.insert("HostConfig".into(), host);
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

/// A terminal's output is one stream. Its last bytes come before the daemon closes the connection.
async fn pass_terminal(mut output: ReadHalf<TokioIo<Upgraded>>) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match output.read(&mut buffer).await.context("the container's output broke off")? {
            0 => return Ok(()),
            len => mux::write(Stream::Stdout, &buffer[..len])?,
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

/// Who sits at a terminal types signals. One that comes another way means this process: its end, or the end of its
/// terminal, is the container's terminal's.
async fn hang_up() -> anyhow::Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let kind = tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hangup.recv() => SignalKind::hangup(),
    };
    Ok(u8::try_from(128 + kind.as_raw_value()).unwrap_or(EXIT_USAGE))
}

/// The container's terminal is as large as ours, whenever that changes. Only returns where that isn't possible.
async fn forward_size(client: &Client, container: &str) -> anyhow::Error {
    let mut changed = match signal(SignalKind::window_change()) {
        Ok(changed) => changed,
        Err(error) => return error.into(),
    };
    while changed.recv().await.is_some() {
        let Some((rows, columns)) = terminal::size() else { continue };
        // One that has just ended has no size.
        let _ = client.post(&format!("{container}/resize?h={rows}&w={columns}"), None).await;
    }
    pending().await
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
    }

    #[test]
    fn a_terminal_and_what_else_was_asked_for_are_sent() {
        let line = "skep run -it --name a --entrypoint sh -w /srv -u 33 --hostname h --stop-signal INT --network n host -c x";
        let body = create_body(&args(line)).unwrap();
        for (field, value) in [
            ("AttachStdin", json!(true)),
            ("OpenStdin", json!(true)),
            ("Tty", json!(true)),
            ("Entrypoint", json!(["sh"])),
            ("Cmd", json!(["-c", "x"])),
            ("WorkingDir", json!("/srv")),
            ("User", json!("33")),
            ("Hostname", json!("h")),
            ("StopSignal", json!("INT")),
        ] {
            assert_eq!(body[field], value, "{field}");
        }
        assert_eq!(body["HostConfig"]["AutoRemove"], false);
        let detached = create_body(&args("skep run -d --network n host x")).unwrap();
        assert_eq!((&detached["AttachStdin"], &detached["AttachStdout"]), (&json!(false), &json!(false)));
    }

    #[test]
    fn exit_codes_are_dockers() {
        let daemon =
            |message: &str| Error::Daemon { status: StatusCode::BAD_REQUEST, message: message.into() }.into();
        assert_eq!(
            exit_code_of(&daemon("cannot start the container: exec: \"/nope\": no such file or directory")),
            127
        );
        assert_eq!(exit_code_of(&daemon("find user x: No such file or directory (os error 2)")), 125);
        assert_eq!(exit_code_of(&daemon("exec: \"nope\": executable file not found in $PATH")), 127);
        assert_eq!(exit_code_of(&daemon("exec /etc: permission denied")), 126);
        assert_eq!(exit_code_of(&daemon("network x not found")), 125);
        assert_eq!(exit_code_of(&anyhow::anyhow!("anything")), 125);
    }
}
