//! `skep service logs`: lines of a service's tasks, or of one task, each with who wrote it.

use std::collections::HashMap;

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::BodyExt;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::client::Client;
use crate::mux::{self, Demux, Stream};
use crate::query::{self, number, text};
use crate::show::short_id;
use crate::tasks::Names;

#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// Go on as lines are written
    #[arg(short, long)]
    follow: bool,
    /// Only lines since a time (2026-11-21T04:36:27Z) or for a duration (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// How many of each task's last lines
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// With the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Only the lines
    #[arg(long)]
    raw: bool,
    /// Whole task ids
    #[arg(long)]
    no_trunc: bool,
    /// Ids instead of the names of services and hosts
    #[arg(long)]
    no_resolve: bool,
    /// Without task ids
    #[arg(long)]
    no_task_ids: bool,
    /// A service, or a task's id
    #[arg(value_name = "SERVICE|TASK")]
    what: String,
}

pub(super) async fn run(client: &Client, args: &LogsArgs) -> anyhow::Result<u8> {
    let query = logs_query(args, Timestamp::now())?;
    let (object, widest) = find(client, &args.what).await?;
    let response = client.stream(Method::GET, &format!("{object}/logs?{query}")).await?;
    let mut printer =
        Printer { client, args, names: Names::new(client, args.no_resolve), tasks: HashMap::new(), widest };
    let (mut body, mut demux) = (response.into_body(), Demux::default());
    while let Some(frame) = body.frame().await {
        if let Some(bytes) = frame.context("the log broke off")?.data_ref() {
            demux.push(bytes);
        }
        while let Some((stream, line)) = demux.next()? {
            printer.print(stream, &line).await?;
        }
    }
    demux.finish()?;
    Ok(0)
}

/// Path of the service, or else of the task, and how many digits the service's slots have.
async fn find(client: &Client, what: &str) -> anyhow::Result<(String, usize)> {
    let path = query::object("services", what)?;
    match client.get(&format!("{path}?insertDefaults=false")).await {
        Ok(service) => {
            let replicas = number(&service, "/Spec/Mode/Replicated/Replicas");
            Ok((query::object("services", text(&service, "/ID"))?, replicas.to_string().len()))
        }
        Err(error) if error.is_not_found() => match client.get(&query::object("tasks", what)?).await {
            Ok(task) => Ok((query::object("tasks", text(&task, "/ID"))?, 1)),
            Err(error) if error.is_not_found() => bail!("no such task or service: {what}"),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// The parameters in the stock CLI's order.
fn logs_query(args: &LogsArgs, now: Timestamp) -> anyhow::Result<String> {
    let mut parameters = Vec::new();
    if !args.raw {
        parameters.push("details=1".to_owned());
    }
    if args.follow {
        parameters.push("follow=1".into());
    }
    if let Some(since) = &args.since {
        parameters.push(format!("since={}", query::encode(&since_parameter(since, now)?)));
    }
    parameters.push("stderr=1&stdout=1".into());
    if args.tail != "all" && args.tail.parse::<u64>().is_err() {
        bail!("bad --tail {}: a number of lines, or all", args.tail);
    }
    parameters.push(format!("tail={}", args.tail));
    if args.timestamps {
        parameters.push("timestamps=1".into());
    }
    Ok(parameters.join("&"))
}

/// Seconds since 1970, with nanoseconds where the user gave any.
fn since_parameter(since: &str, now: Timestamp) -> anyhow::Result<String> {
    if since.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && !since.is_empty() {
        return Ok(since.to_owned());
    }
    let at = match (since.parse::<Timestamp>(), since.parse::<SignedDuration>()) {
        (Ok(at), _) => at,
        (_, Ok(duration)) => {
            now.checked_sub(duration).with_context(|| format!("bad --since {since}: too long ago"))?
        }
        _ => bail!("bad --since {since}: a time such as 2026-11-21T04:36:27Z, or a duration such as 10m"),
    };
    Ok(match at.subsec_nanosecond() {
        0 => at.as_second().to_string(),
        nanos => format!("{}.{nanos:09}", at.as_second()),
    })
}

struct Printer<'a> {
    client: &'a Client,
    args: &'a LogsArgs,
    names: Names<'a>,
    /// What stands before a task's lines, by task id.
    tasks: HashMap<String, String>,
    /// Digits of the highest slot, so that lines stand in columns.
    widest: usize,
}

impl Printer<'_> {
    async fn print(&mut self, stream: Stream, line: &[u8]) -> anyhow::Result<()> {
        let mut out = Vec::with_capacity(line.len() + 48);
        if self.args.raw {
            out.extend_from_slice(line);
        } else {
            let (time, details, message) = split(line, self.args.timestamps);
            if let Some(time) = time {
                out.extend_from_slice(time);
                out.push(b' ');
            }
            out.extend_from_slice(self.writer(&details).await?.as_bytes());
            out.extend_from_slice(b"    | ");
            out.extend_from_slice(message);
        }
        Ok(mux::write(stream, &out)?)
    }

    /// `web.1.k051wi3g75qt@node-1`
    async fn writer(&mut self, details: &Details<'_>) -> anyhow::Result<String> {
        if let Some(known) = self.tasks.get(details.task) {
            return Ok(known.clone());
        }
        let node = self.names.node(details.node).await?;
        let task = match self.client.get(&query::object("tasks", details.task)?).await {
            Ok(task) => task,
            // Its lines outlive a task that left the history.
            Err(error) if error.is_not_found() => Value::Null,
            Err(error) => return Err(error.into()),
        };
        let mut name = self.names.task(&task).await?;
        if !self.args.no_task_ids {
            let id = if self.args.no_trunc { details.task.to_owned() } else { short_id(details.task) };
            name = if name.is_empty() { id } else { format!("{name}.{id}") };
        }
        let digits = number(&task, "/Slot").to_string().len();
        let padding = " ".repeat(self.widest.saturating_sub(digits));
        let writer = format!("{name}@{node}{padding}");
        self.tasks.insert(details.task.to_owned(), writer.clone());
        Ok(writer)
    }
}

/// Who wrote a line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Details<'l> {
    node: &'l str,
    task: &'l str,
}

/// `[TIME ]com.docker.swarm.node.id=…,com.docker.swarm.service.id=…,com.docker.swarm.task.id=… message`
fn split(line: &[u8], timestamps: bool) -> (Option<&[u8]>, Details<'_>, &[u8]) {
    let word = |bytes: &'_ [u8]| bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
    let rest_after = |bytes, at: usize| -> &[u8] { <[u8]>::get(bytes, at + 1..).unwrap_or_default() };
    let (time, rest) = match timestamps {
        true => (Some(&line[..word(line)]), rest_after(line, word(line))),
        false => (None, line),
    };
    let mut details = Details::default();
    for pair in std::str::from_utf8(&rest[..word(rest)]).unwrap_or_default().split(',') {
        match pair.split_once('=') {
            Some(("com.docker.swarm.node.id", id)) => details.node = id,
            Some(("com.docker.swarm.task.id", id)) => details.task = id,
            _ => {}
        }
    }
    (time, details, rest_after(rest, word(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn args(line: &str) -> LogsArgs {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Service(super::super::Command::Logs(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    /// The queries the stock CLI 28.2.2 sent.
    #[test]
    fn the_query_is_dockers() {
        let now = "2026-11-21T05:02:48.5Z".parse().unwrap();
        for (line, query) in [
            ("skep service logs myweb", "details=1&stderr=1&stdout=1&tail=all"),
            ("skep service logs -t --tail 1 --raw myweb", "stderr=1&stdout=1&tail=1&timestamps=1"),
            (
                "skep service logs -f --since 1700000000 w",
                "details=1&follow=1&since=1700000000&stderr=1&stdout=1&tail=all",
            ),
        ] {
            assert_eq!(logs_query(&args(line), now).unwrap(), query, "{line}");
        }
        assert_eq!(since_parameter("1m", now).unwrap(), "1795237308.500000000");
        assert_eq!(since_parameter("2026-11-21T04:02:48Z", now).unwrap(), "1795233768");
        for bad in ["yesterday", "", "-"] {
            assert!(since_parameter(bad, now).is_err(), "{bad}");
        }
        assert!(logs_query(&args("skep service logs --tail some w"), now).is_err());
    }

    #[test]
    fn a_lines_details_are_taken_off() {
        let line = b"com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,com.docker.swarm.task.id=t1 hello  you\n";
        assert_eq!(split(line, false), (None, Details { node: "n1", task: "t1" }, &b"hello  you\n"[..]));
        let (time, details, message) = split(b"2026-11-21T04:37:04Z com.docker.swarm.task.id=t1 x", true);
        assert_eq!((time, details.task, message), (Some(&b"2026-11-21T04:37:04Z"[..]), "t1", &b"x"[..]));
        for odd in [&b""[..], b" ", b"x", b"\xff\xfe y"] {
            split(odd, true);
            split(odd, false);
        }
    }
}
