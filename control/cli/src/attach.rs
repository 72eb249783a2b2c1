//! `skep attach` and `skep detach`: any network namespace of this host on a network of the cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::client::Client;
use crate::query::text;
use crate::{out, show};

/// Which namespace; exactly one of the two.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct Namespace {
    /// File of the namespace, such as /run/netns/NAME
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// A process in the namespace
    #[arg(long)]
    pid: Option<u32>,
}

impl Namespace {
    /// The absolute path of the namespace's file, None where neither was given.
    fn path(&self) -> anyhow::Result<Option<PathBuf>> {
        let path = match (&self.netns, self.pid) {
            (Some(path), _) => path.clone(),
            (None, Some(pid)) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            (None, None) => return Ok(None),
        };
        let path = std::path::absolute(&path).with_context(|| format!("{} is no path", path.display()))?;
        Ok(Some(path))
    }

    /// As [`Self::path`], of a namespace that is there.
    fn existing(&self) -> anyhow::Result<Option<PathBuf>> {
        let path = self.path()?;
        match path.as_deref().filter(|path| std::fs::metadata(path).is_err()) {
            Some(path) => bail!("{}", missing(path, self.pid)),
            None => Ok(path),
        }
    }
}

fn missing(path: &Path, pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("there is no process {pid}, or its namespace can't be seen: run this as root"),
        None => format!(
            "there is no network namespace at {}: give its file, such as /run/netns/NAME, or a process in it with --pid",
            path.display()
        ),
    }
}

#[derive(Args, Debug)]
pub(crate) struct AttachArgs {
    /// Name or id of an attachable network
    network: String,
    #[command(flatten)]
    namespace: Namespace,
    /// The name that finds it on the network
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// The address to have; without it the cluster picks one
    #[arg(long, default_value = "", hide_default_value = true)]
    ip: String,
    /// Only the attachment's id
    #[arg(short, long)]
    quiet: bool,
    /// `json`, or a template such as '{{.Address}}'
    #[arg(long)]
    format: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct DetachArgs {
    /// The attachment's id; with --netns or --pid the network
    #[arg(value_name = "ID|NETWORK")]
    what: String,
    #[command(flatten)]
    namespace: Namespace,
}

pub(crate) async fn attach(client: &Client, args: AttachArgs) -> anyhow::Result<u8> {
    let Some(netns) = args.namespace.existing()? else {
        bail!("which network namespace? Name its file with --netns PATH, or a process in it with --pid PID");
    };
    let body = json!({"Network": args.network, "Netns": netns, "Name": args.name, "Ip": args.ip});
    let attached = client.post("/skep/attach", Some(&body)).await?;
    if args.quiet {
        out::line(text(&attached, "/Id"))?;
        return Ok(0);
    }
    show::object(&attached, args.format.as_deref(), || sentence(&args.network, &attached))?;
    Ok(0)
}

fn sentence(network: &str, attached: &Value) -> String {
    format!(
        "Attached to {network} as {}: {} on {} ({})\n",
        text(attached, "/Name"),
        text(attached, "/Address"),
        text(attached, "/Interface"),
        text(attached, "/Id"),
    )
}

/// The daemon knows by which path a namespace was attached: its file need not be there any more.
pub(crate) async fn detach(client: &Client, args: DetachArgs) -> anyhow::Result<u8> {
    let body = match args.namespace.path()? {
        Some(netns) => json!({"Netns": netns, "Network": args.what}),
        None => json!({"Id": args.what}),
    };
    client.post("/skep/detach", Some(&body)).await?;
    out::line(args.what)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn namespace(line: &str) -> Namespace {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Attach(args) => args.namespace,
            Command::Detach(args) => args.namespace,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_process_stands_for_its_namespace() {
        let pid = std::process::id();
        let path = namespace(&format!("skep attach backend --pid {pid}")).path().unwrap();
        assert_eq!(path, Some(format!("/proc/{pid}/ns/net").into()));
        assert_eq!(namespace("skep attach backend").path().unwrap(), None);
        let gone = namespace("skep attach backend --pid 4294967295").existing().unwrap_err().to_string();
        assert!(gone.contains("there is no process 4294967295"), "{gone}");
        let deleted = namespace("skep detach backend --netns /nowhere/ns");
        assert_eq!(deleted.path().unwrap(), Some("/nowhere/ns".into()), "it can be detached still");
        let gone = deleted.existing().unwrap_err().to_string();
        assert!(gone.contains("no network namespace at /nowhere/ns"), "{gone}");
        assert!(Cli::try_parse_from("skep attach n --pid 1 --netns /proc/1/ns/net".split(' ')).is_err());
    }
}
