//! The command line: docker's verbs and flags.

use clap::{Args, Parser, Subcommand};

use crate::{attach, network, node, run, service, swarm};

pub(crate) const DEFAULT_HOST: &str = "unix:///run/skep/skep.sock";

#[derive(Debug, Parser)]
#[command(name = "skep", version, about = "Swarm-mode networking without kernel VXLAN, IPVS or IPsec")]
#[command(args_override_self = true)]
pub(crate) struct Cli {
    /// Socket of the daemon
    #[arg(short = 'H', long, global = true, env = "SKEP_HOST", hide_env_values = true, default_value = DEFAULT_HOST, value_name = "unix://PATH")]
    pub(crate) host: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make this host a cluster, join one, leave it
    #[command(subcommand)]
    Swarm(swarm::Command),
    /// The cluster's hosts
    #[command(subcommand)]
    Node(node::Command),
    /// Overlay networks
    #[command(subcommand)]
    Network(network::Command),
    /// Services: replicated tasks behind one name and one address
    #[command(subcommand)]
    Service(service::Command),
    /// Run a command in a container on a network of the cluster
    Run(run::RunArgs),
    /// Attach any network namespace of this host to a network
    Attach(attach::AttachArgs),
    /// Take a network namespace off a network
    Detach(attach::DetachArgs),
    /// What this host and its cluster are
    Info(Format),
    /// Versions of client and daemon
    Version(Format),
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Format {
    /// `json`, or a template such as '{{.Name}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// What every listing takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ListArgs {
    /// Only what matches, as KEY=VALUE
    #[arg(short, long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// `json` (one object a line), or a template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What every inspection takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct InspectArgs {
    /// `json`, or a template such as '{{.Spec.Name}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
