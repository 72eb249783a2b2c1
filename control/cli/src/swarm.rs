//! `skep swarm`: make a cluster, join one, leave it.

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::client::Client;
use crate::query::{self, number, text};
use crate::{later, out};

const LISTEN_ADDR: &str = "0.0.0.0:2377";
/// The first is what a cluster gets that asks for none.
const DATA_CIPHERS: [&str; 2] = ["chacha20-poly1305", "aes-256-gcm"];

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make this host the first manager of a new cluster
    Init(InitArgs),
    /// Make this host a member of a cluster
    Join(JoinArgs),
    /// Print the command that lets a host join, or replace its token
    JoinToken(TokenArgs),
    /// Change the cluster's settings
    Update(UpdateArgs),
    /// Take this host out of its cluster
    Leave {
        /// Also if that ends the cluster
        #[arg(short, long)]
        force: bool,
    },
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Where this host is reached.
#[derive(Args, Debug)]
pub(crate) struct Addresses {
    /// Address other hosts reach this one at: IP, interface, or either with :PORT
    #[arg(long, default_value = "", hide_default_value = true)]
    advertise_addr: String,
    /// Address the manager listens on
    #[arg(long, default_value = LISTEN_ADDR)]
    listen_addr: String,
    /// Address for the data path (VXLAN), if it isn't the advertised one
    #[arg(long, default_value = "", hide_default_value = true)]
    data_path_addr: String,
    /// Whether this host takes tasks
    #[arg(long)]
    availability: Option<Availability>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Availability {
    Active,
    Pause,
    Drain,
}

impl Availability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        }
    }
}

impl Addresses {
    fn availability(&self) -> &'static str {
        self.availability.map_or("", Availability::name)
    }
}

#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    addresses: Addresses,
    /// UDP port of the data path; 0: 4789
    #[arg(long, default_value_t = 0)]
    data_path_port: u16,
    /// Cipher that frames between hosts are sealed with; the cluster keeps it
    #[arg(long, value_name = "NAME", value_parser = DATA_CIPHERS)]
    data_cipher: Option<String>,
    /// Pool that networks get their subnets from (CIDR, several allowed)
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    default_addr_pool: Vec<String>,
    /// Prefix length of those subnets
    #[arg(long, default_value_t = 24)]
    default_addr_pool_mask_length: u32,
    /// How many tasks of each slot are kept, the current one included (5)
    #[arg(long, allow_negative_numbers = true)]
    task_history_limit: Option<i64>,
}

#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    #[command(flatten)]
    addresses: Addresses,
    /// As `skep swarm join-token` prints it
    #[arg(long, default_value = "", hide_default_value = true)]
    token: String,
    /// A manager of the cluster
    #[arg(value_name = "HOST:PORT")]
    remote: String,
}

#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    /// Only the token
    #[arg(short, long)]
    quiet: bool,
    /// Replace the token: the old one is refused from then on
    #[arg(long)]
    rotate: bool,
    role: Role,
}

#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// How many tasks of each slot are kept, the current one included
    #[arg(long, allow_negative_numbers = true)]
    task_history_limit: Option<i64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Role {
    Worker,
    Manager,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }

    fn token(self, swarm: &Value) -> &str {
        match self {
            Self::Worker => text(swarm, "/JoinTokens/Worker"),
            Self::Manager => text(swarm, "/JoinTokens/Manager"),
        }
    }
}

pub(crate) async fn run(client: &Client, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Init(args) => init(client, &args).await?,
        Command::Join(args) => join(client, &args).await?,
        Command::Update(args) => update(client, &args).await?,
        Command::JoinToken(args) => join_token(client, &args).await?,
        Command::Leave { force } => {
            let path = if force { "/swarm/leave?force=1" } else { "/swarm/leave" };
            client.post(path, None).await?;
            out::line("Node left the swarm.")?;
        }
        Command::Other(words) => return later::refuse("swarm", &words),
    }
    Ok(0)
}

async fn init(client: &Client, args: &InitArgs) -> anyhow::Result<()> {
    let answer = client.post("/swarm/init", Some(&init_body(args))).await?;
    let node_id = answer.as_str().unwrap_or_default();
    out::line(format!("Swarm initialized: current node ({node_id}) is now a manager.\n"))?;
    print_join_command(client, node_id, Role::Worker).await?;
    out::line(
        "\nTo add a manager to this swarm, run 'skep swarm join-token manager' and follow the instructions.",
    )?;
    Ok(())
}

fn init_body(args: &InitArgs) -> Value {
    let addresses = &args.addresses;
    let mut body = json!({
        "ListenAddr": addresses.listen_addr,
        "AdvertiseAddr": addresses.advertise_addr,
        "DataPathAddr": addresses.data_path_addr,
        "DataPathPort": args.data_path_port,
        "ForceNewCluster": false,
        "Spec": {
            "Labels": null,
            "Orchestration": orchestration(args.task_history_limit),
            "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
            "Dispatcher": {},
            "CAConfig": {},
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": false},
        },
        "AutoLockManagers": false,
        "Availability": addresses.availability(),
        "DefaultAddrPool": args.default_addr_pool,
        "SubnetSize": args.default_addr_pool_mask_length,
    });
    if let Some(cipher) = &args.data_cipher {
        body["DataCipher"] = json!(cipher);
    }
    body
}

fn orchestration(history: Option<i64>) -> Value {
    match history {
        Some(limit) => json!({"TaskHistoryRetentionLimit": limit}),
        None => json!({}),
    }
}

async fn update(client: &Client, args: &UpdateArgs) -> anyhow::Result<()> {
    if args.task_history_limit.is_none() {
        bail!("nothing to change was named: `skep swarm update --help` lists what there is");
    }
    let swarm = client.get("/swarm").await?;
    let mut spec = swarm["Spec"].clone();
    spec["Orchestration"] = orchestration(args.task_history_limit);
    change(client, &swarm, &spec, (false, false)).await?;
    out::line("Swarm updated.")?;
    Ok(())
}

async fn join(client: &Client, args: &JoinArgs) -> anyhow::Result<()> {
    if args.token.is_empty() {
        bail!("--token is missing: `skep swarm join-token worker` on a manager prints the whole command");
    }
    client.post("/swarm/join", Some(&join_body(args))).await?;
    let info = client.get("/info").await?;
    let is_manager = info.pointer("/Swarm/ControlAvailable").and_then(Value::as_bool) == Some(true);
    let role = if is_manager { Role::Manager } else { Role::Worker };
    out::line(format!("This node joined a swarm as a {}.", role.name()))?;
    Ok(())
}

fn join_body(args: &JoinArgs) -> Value {
    json!({
        "ListenAddr": args.addresses.listen_addr,
        "AdvertiseAddr": args.addresses.advertise_addr,
        "DataPathAddr": args.addresses.data_path_addr,
        "RemoteAddrs": [args.remote],
        "JoinToken": args.token,
        "Availability": args.addresses.availability(),
    })
}

async fn join_token(client: &Client, args: &TokenArgs) -> anyhow::Result<()> {
    let role = args.role;
    if args.rotate {
        rotate(client, role).await?;
        if !args.quiet {
            out::line(format!("Successfully rotated {} join token.\n", role.name()))?;
        }
    }
    if args.quiet {
        let swarm = client.get("/swarm").await?;
        out::line(role.token(&swarm))?;
        return Ok(());
    }
    let info = client.get("/info").await?;
    let node_id = text(&info, "/Swarm/NodeID");
    print_join_command(client, node_id, role).await?;
    out::line("")?;
    Ok(())
}

async fn rotate(client: &Client, role: Role) -> anyhow::Result<()> {
    let swarm = client.get("/swarm").await?;
    let tokens = match role {
        Role::Worker => (true, false),
        Role::Manager => (false, true),
    };
    change(client, &swarm, &swarm["Spec"], tokens).await
}

/// Changes the cluster as it was read: with this spec, and with new tokens for workers or managers.
async fn change(
    client: &Client,
    read: &Value,
    spec: &Value,
    (worker, manager): (bool, bool),
) -> anyhow::Result<()> {
    let path = format!(
        "/swarm/update?rotateManagerToken={manager}&rotateManagerUnlockKey=false&rotateWorkerToken={worker}&version={}",
        number(read, "/Version/Index")
    );
    client.post(&path, Some(spec)).await?;
    Ok(())
}

async fn print_join_command(client: &Client, node_id: &str, role: Role) -> anyhow::Result<()> {
    let node = client.get(&query::object("nodes", node_id)?).await?;
    let swarm = client.get("/swarm").await?;
    let (token, manager) = (role.token(&swarm), text(&node, "/ManagerStatus/Addr"));
    if token.is_empty() || manager.is_empty() {
        bail!(
            "the daemon didn't say its join token and address: `skep swarm join-token {}` may know them",
            role.name()
        );
    }
    out::line(format!("To add a {} to this swarm, run the following command:\n", role.name()))?;
    out::line(format!("    skep swarm join --token {token} {manager}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn command(line: &str) -> Command {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            crate::cli::Command::Swarm(command) => command,
            other => panic!("{other:?}"),
        }
    }

    /// The body the stock CLI 28.2.2 sent for the same command.
    #[test]
    fn init_sends_what_docker_sends() {
        let Command::Init(args) = command("skep swarm init --advertise-addr 192.0.2.10") else { panic!() };
        let docker = r#"{"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.10", "DataPathAddr": "", "DataPathPort": 0, "ForceNewCluster": false, "Spec": {"Labels": null, "Orchestration": {}, "Raft": {"ElectionTick": 0, "HeartbeatTick": 0}, "Dispatcher": {}, "CAConfig": {}, "TaskDefaults": {}, "EncryptionConfig": {"AutoLockManagers": false}}, "AutoLockManagers": false, "Availability": "", "DefaultAddrPool": [], "SubnetSize": 24}"#;
        assert_eq!(init_body(&args), serde_json::from_str::<Value>(docker).unwrap());
    }

    #[test]
    fn a_cipher_is_asked_for_by_its_name() {
        let Command::Init(args) = command("skep swarm init --data-cipher aes-256-gcm") else { panic!() };
        assert_eq!(init_body(&args)["DataCipher"], "aes-256-gcm");
        assert!(Cli::try_parse_from(["skep", "swarm", "init", "--data-cipher", "rot13"]).is_err());
    }

    /// The body the stock CLI 28.2.2 sent for the same command.
    #[test]
    fn join_sends_what_docker_sends() {
        let Command::Join(args) = command("skep swarm join --token SWMTKN-1-x-y 192.0.2.10:2377") else {
            panic!()
        };
        let docker = r#"{"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "", "DataPathAddr": "", "RemoteAddrs": ["192.0.2.10:2377"], "JoinToken": "SWMTKN-1-x-y", "Availability": ""}"#;
        assert_eq!(join_body(&args), serde_json::from_str::<Value>(docker).unwrap());
    }
}
