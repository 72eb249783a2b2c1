//! What the agent makes true of its host's kernel: container namespaces with their interfaces, the
//! egress bridge, `skep0` and the nft table of the routing mesh.
//!
//! Everything here is named so that a starting daemon recognises what a killed one left:
//! the tables `inet skep`, `inet skep_quota` and `bridge skep`, the links [`GWBRIDGE`], [`SKEP0`] and [`VETH_PREFIX`]`*`.
//!
//! All work happens in one namespace, the host's, which is the caller's unless [`HostConfig::netns`]
//! says otherwise. A runtime worker never changes namespace; see [`netns`].

mod addresses;
mod errors;
mod facts;
mod firewall;
mod guard;
mod gwbridge;
mod mesh;
mod netlink;
pub mod netns;
mod nft;
mod prerequisites;
mod quota;
mod rules;
mod sandbox;
mod sources;
mod subnet;
mod sysctl;
mod tables;
mod upkeep;

pub use errors::{FactsError, GwbridgeError, HostError, MeshError, RulesError, SandboxError, TeardownError};
pub use facts::{HostAddress, HostFacts};
pub use mesh::{MeshPlan, MeshReport, PortConflict, PublishedPort, RECHECK_PERIOD, Skep0};
pub use quota::EGRESS_CONNECTIONS;
pub use rules::Underlay;
pub use sandbox::{EgressInterface, IngressRouting, InterfaceSpec, Sandbox, SandboxNetns, SandboxSpec};
pub use skep_dataplane::io::{Process, Tap};

use addresses::{Lease, MAX_CONTAINERS};
use gwbridge::Gwbridge;
use ipnet::Ipv4Net;
use mesh::Mesh;
use netlink::Netlink;
use netns::Netns;
use rules::Rules;
use sandbox::Outside;
use std::io;
use std::path::PathBuf;
use sysctl::Sysctls;
use tables::{Table, Tables};
use tokio::sync::{Mutex, watch};
use upkeep::Seen;

/// The bridge containers leave the host by. Docker's API lists it as `docker_gwbridge`.
pub const GWBRIDGE: &str = "skep_gwbridge";
/// The TAP between the host's kernel and the ingress network.
pub const SKEP0: &str = "skep0";
/// Starts the name of every veth's host side.
pub const VETH_PREFIX: &str = "skv";

#[derive(Debug)]
pub struct HostConfig {
    /// The namespace to work in; the caller's if None.
    pub netns: Option<Netns>,
    /// MTU of the egress bridge and veths, in bytes: the underlay interface's.
    pub egress_mtu: u32,
    /// Where the host's resolvers are written down.
    pub resolv_conf: PathBuf,
    /// Remembers the sysctls changed here, so that they can be restored even by the daemon after a
    /// killed one. None: they are remembered for this process's life only.
    pub sysctl_record: Option<PathBuf>,
    /// What nobody of this host but the daemon may send to. None: it isn't guarded.
    pub underlay: Option<Underlay>,
    /// Connections a container may have through the egress bridge at a time.
    pub egress_connections: u32,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            netns: None,
            egress_mtu: 1500,
            resolv_conf: "/etc/resolv.conf".into(),
            sysctl_record: None,
            underlay: None,
            egress_connections: EGRESS_CONNECTIONS,
        }
    }
}

/// The host's kernel as the agent sees it. Methods may be called concurrently.
#[derive(Debug)]
pub struct Host {
    resolv_conf: PathBuf,
    egress_mtu: u32,
    underlay: Option<Underlay>,
    egress_connections: u32,
    netns: Netns,
    netlink: Netlink,
    /// What keeps parts of it from working, one sentence each.
    obstacles: watch::Sender<Vec<String>>,
    /// What was made so far. Held across each change, so that changes come one after the other.
    made: Mutex<Made>,
}

#[derive(Debug)]
struct Made {
    gwbridge: Option<Gwbridge>,
    mesh: Mesh,
    tables: Tables,
    /// [`nft::generation`] when the tables, ours and others', were last seen to be right.
    seen_right: Option<u32>,
    sysctls: Sysctls,
}

impl Made {
    fn is_anything(&self) -> bool {
        self.gwbridge.is_some() || self.mesh.is_on()
    }
}

impl Host {
    /// Checks what is needed (privileges, `/dev/net/tun`, `nft`) and opens a netlink connection.
    pub async fn open(config: HostConfig) -> Result<Self, HostError> {
        let missing = prerequisites::missing();
        if !missing.is_empty() {
            return Err(HostError::Missing(missing));
        }
        let netns = config.netns.map_or_else(Netns::current, Ok).map_err(HostError::Netns)?;
        let netlink = Netlink::in_netns(&netns).await.map_err(HostError::Netlink)?;
        let sysctls = Sysctls::new(config.sysctl_record);
        let (mesh, tables) = Default::default();
        let made = Made { gwbridge: None, mesh, tables, seen_right: None, sysctls };
        let HostConfig { resolv_conf, egress_mtu, underlay, egress_connections, .. } = config;
        let (made, obstacles) = (Mutex::new(made), watch::Sender::default());
        Ok(Self { resolv_conf, egress_mtu, underlay, egress_connections, netns, netlink, obstacles, made })
    }

    /// Removes what a killed daemon left. Continues past errors and returns them all.
    pub async fn clear_leftovers(&self) -> Result<(), TeardownError> {
        self.teardown().await
    }

    /// Facts about the host, read afresh at each call.
    pub async fn facts(&self) -> Result<HostFacts, FactsError> {
        facts::read(&self.netlink, &self.resolv_conf).await
    }

    /// Makes sure the egress bridge is there, with masquerade and isolation. Its subnet is picked clear of
    /// the host's routes and resolvers, and kept while the bridge lives.
    pub async fn ensure_gwbridge(&self) -> Result<Ipv4Net, GwbridgeError> {
        let made = &mut *self.made.lock().await;
        let subnet = self.make_gwbridge(made).await?;
        self.load_rules(made).await?;
        Ok(subnet)
    }

    /// What of this host keeps parts of the network from working, and what to do about it.
    pub fn obstacles(&self) -> Vec<String> {
        self.obstacles.borrow().clone()
    }

    /// Makes (or enters) a namespace and gives it its interfaces, routes and DNS sockets. On an error
    /// nothing is left of it.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, SandboxError> {
        let egress = if spec.egress { Some(self.lend_egress(&spec.id).await?) } else { None };
        let mut sandbox = Sandbox::new(spec.id, spec.netns)?;
        let outside = Outside { netns: &self.netns, netlink: &self.netlink, egress };
        if let Err(error) = sandbox.fill(&spec.interfaces, outside, spec.dns).await {
            if let Err(leftover) = self.remove_sandbox(sandbox).await {
                tracing::warn!("{leftover}");
            }
            return Err(error);
        }
        Ok(sandbox)
    }

    /// Takes down what [`Self::create_sandbox`] made. Detach the ports from the engine first: an
    /// interface goes with its TAP.
    pub async fn remove_sandbox(&self, sandbox: Sandbox) -> Result<(), TeardownError> {
        let mut errors = sandbox.remove(&self.netlink).await;
        if let Err(error) = self.load_rules(&mut *self.made.lock().await).await {
            errors.push(format!("cannot take a container out of the nft table {}: {error}", sources::NAME));
        }
        TeardownError::unless_empty(errors)
    }

    /// Makes `plan` true: `skep0`, guard sockets, rules. Idempotent; takes the whole plan each time.
    /// After an error, call it again: nothing that was made by then is lost.
    pub async fn apply_mesh(&self, plan: MeshPlan) -> Result<MeshReport, MeshError> {
        let made = &mut *self.made.lock().await;
        made.mesh.prepare(plan, &self.netns, &self.netlink, &mut made.sysctls).await?;
        self.load_rules(made).await?;
        Ok(made.mesh.finish())
    }

    /// Compares everything made here with what is there, and puts right what somebody else changed or took
    /// away; tries ports again that another program held. Writes nothing where nothing is wrong. Call it
    /// every [`RECHECK_PERIOD`] or so; what it reports is as after [`Self::apply_mesh`].
    pub async fn recheck(&self) -> Result<MeshReport, MeshError> {
        let made = &mut *self.made.lock().await;
        if !made.is_anything() {
            return Ok(MeshReport::default());
        }
        // What keeps traffic out comes first.
        let mut repaired = self.look_at_tables(made).await.map_err(RulesError::Run)?;
        self.load_rules(made).await?;
        repaired.extend(self.put_interfaces_right(made).await?);
        made.mesh.take_ports(&self.netns).await?;
        self.load_rules(made).await?;
        if !repaired.is_empty() {
            tracing::warn!(
                "something else changed this host's network; Skep put right {}",
                repaired.join(", ")
            );
        }
        Ok(made.mesh.finish())
    }

    /// Everything off; sysctls changed here are restored. Continues past errors and returns them all.
    pub async fn teardown(&self) -> Result<(), TeardownError> {
        let made = &mut *self.made.lock().await;
        // The tables last: without them a container whose daemon was killed would send what is for its overlay, which
        // it has no interface to any more, out of the egress bridge, where nothing seals it.
        let mut errors = self.delete_links().await;
        errors.extend(made.tables.remove(&self.netns).await);
        errors.extend(firewall::leave(&self.netns).await);
        self.obstacles.send_replace(Vec::new());
        errors.extend(made.sysctls.restore(&self.netns).await);
        (made.gwbridge, made.mesh, made.seen_right) = (None, Mesh::default(), None);
        TeardownError::unless_empty(errors)
    }

    async fn make_gwbridge(&self, made: &mut Made) -> Result<Ipv4Net, GwbridgeError> {
        let step = |what: &'static str| move |source| GwbridgeError::Step { step: what.to_owned(), source };
        let forward = made.sysctls.forward(&self.netns).await;
        forward.map_err(step("let this host forward (net.ipv4.ip_forward)"))?;
        let link = self.netlink.link(GWBRIDGE).await.map_err(step("look for the egress bridge"))?;
        match (&mut made.gwbridge, link) {
            (Some(bridge), Some(_)) => return Ok(bridge.subnet),
            (Some(bridge), None) => {
                bridge.recreate(&self.netns, &self.netlink).await?;
                return Ok(bridge.subnet);
            }
            (None, Some(leftover)) => {
                let deleted = self.netlink.delete_link(leftover.index).await;
                deleted.map_err(step("delete a former egress bridge"))?;
            }
            (None, None) => {}
        }
        let facts = facts::read(&self.netlink, &self.resolv_conf).await?;
        let subnet = Gwbridge::choose_subnet(facts.taken())?;
        let bridge = Gwbridge::create(&self.netns, &self.netlink, self.egress_mtu, subnet).await?;
        made.gwbridge = Some(bridge);
        Ok(subnet)
    }

    async fn lend_egress(&self, id: &str) -> Result<(Lease, u32), SandboxError> {
        let made = &mut *self.made.lock().await;
        self.make_gwbridge(made).await?;
        let lent = made.gwbridge.as_ref().and_then(|bridge| Some((bridge.lend_address()?, bridge.mtu())));
        let lent =
            lent.ok_or_else(|| SandboxError::EgressFull { id: id.to_owned(), limit: MAX_CONTAINERS })?;
        // What the container may send is known before it can send.
        self.load_rules(made).await.map_err(GwbridgeError::from)?;
        Ok(lent)
    }

    /// Interfaces, addresses, routes and settings.
    async fn put_interfaces_right(&self, made: &mut Made) -> Result<Vec<String>, MeshError> {
        let step = |what: &'static str| move |source| MeshError::Step { step: what.to_owned(), source };
        let mut repaired = Vec::new();
        // First, because the interfaces' own settings follow it.
        if made.sysctls.forward(&self.netns).await.map_err(step("let this host forward"))? {
            repaired.push("the setting net.ipv4.ip_forward".to_owned());
        }
        let seen = Seen::read(&self.netlink).await.map_err(step("list this host's interfaces"))?;
        if let Some(bridge) = &mut made.gwbridge {
            repaired.extend(bridge.put_right(&seen, &self.netns, &self.netlink).await?);
        }
        repaired.extend(made.mesh.put_right(&seen, &self.netns, &self.netlink).await?);
        Ok(repaired)
    }

    /// Asks for tables only if anything of nftables was changed since they were right.
    async fn look_at_tables(&self, made: &mut Made) -> io::Result<Vec<String>> {
        let generation = nft::generation(&self.netns).await?;
        let is_same = made.seen_right == Some(generation);
        let changed = if is_same { Vec::new() } else { made.tables.forget_changed(&self.netns).await? };
        let mut repaired: Vec<_> = changed.iter().map(|name| format!("the nft table {name}")).collect();
        if !is_same || firewall::has_legacy(&self.netns).await? {
            repaired.extend(self.pass_firewalls().await);
        }
        made.seen_right = repaired.is_empty().then_some(generation);
        Ok(repaired)
    }

    /// Returns what had to be made for that. What stands in the way is told, not an error.
    async fn pass_firewalls(&self) -> Vec<String> {
        let (made, obstacles) = match firewall::pass(&self.netns).await {
            Ok(outcome) => (outcome.made, outcome.obstacles),
            Err(error) => (Vec::new(), vec![format!("this host's firewall can't be looked at: {error}")]),
        };
        let before = self.obstacles.send_replace(obstacles);
        for obstacle in self.obstacles().iter().filter(|obstacle| !before.contains(obstacle)) {
            tracing::warn!("{obstacle}");
        }
        made
    }

    /// Replaces the tables that should say something else than they do.
    async fn load_rules(&self, made: &mut Made) -> Result<(), RulesError> {
        if !made.is_anything() {
            return Ok(());
        }
        let egress = made.gwbridge.as_ref().map(|bridge| bridge.subnet);
        let (underlay, uid) = (self.underlay.clone(), nix::unistd::geteuid().as_raw());
        let rules = made.mesh.rules(Rules { egress, underlay, uid, ..Rules::default() });
        let containers = made.gwbridge.as_ref().map(Gwbridge::lent).unwrap_or_default();
        let tables = vec![
            Table { name: Rules::NAME, text: rules.table() },
            Table { name: sources::NAME, text: sources::table(&containers) },
            Table { name: quota::NAME, text: quota::table(self.egress_connections) },
        ];
        let is_first = made.tables.is_empty();
        made.tables.load(&self.netns, tables).await?;
        if is_first {
            self.pass_firewalls().await;
        }
        Ok(())
    }

    async fn delete_links(&self) -> Vec<String> {
        let links = match self.netlink.links().await {
            Ok(links) => links,
            Err(error) => return vec![format!("cannot list the host's interfaces: {error}")],
        };
        let mut errors = Vec::new();
        for link in links.iter().filter(|link| facts::is_ours(&link.name)) {
            // One that has gone by itself is as good as deleted.
            if let Err(error) = self.netlink.delete_link(link.index).await
                && error.raw_os_error() != Some(libc::ENODEV)
            {
                errors.push(format!("cannot delete the interface {}: {error}", link.name));
            }
        }
        errors
    }
}
