//! What the agent makes true of its host's kernel: container namespaces with their interfaces, the
//! egress bridge, `skep0` and the nft table of the routing mesh.
//!
//! Everything here is named so that a starting daemon recognises what a killed one left:
//! the table `inet skep`, the links [`GWBRIDGE`], [`SKEP0`] and [`VETH_PREFIX`]`*`.
//!
//! All work happens in one namespace, the host's, which is the caller's unless [`HostConfig::netns`]
//! says otherwise. A runtime worker never changes namespace; see [`netns`].

mod addresses;
mod errors;
mod facts;
mod guard;
mod gwbridge;
mod mesh;
mod netlink;
pub mod netns;
mod nft;
mod prerequisites;
mod rules;
mod sandbox;
mod subnet;
mod sysctl;

pub use errors::{FactsError, GwbridgeError, HostError, MeshError, RulesError, SandboxError, TeardownError};
pub use facts::{HostAddress, HostFacts};
pub use mesh::{MeshPlan, MeshReport, PortConflict, PublishedPort, RECHECK_PERIOD, Skep0};
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
use std::path::PathBuf;
use sysctl::{IP_FORWARD, Sysctls};
use tokio::sync::Mutex;

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
}

impl Default for HostConfig {
    fn default() -> Self {
        Self { netns: None, egress_mtu: 1500, resolv_conf: "/etc/resolv.conf".into(), sysctl_record: None }
    }
}

/// The host's kernel as the agent sees it. Methods may be called concurrently.
#[derive(Debug)]
pub struct Host {
    resolv_conf: PathBuf,
    egress_mtu: u32,
    netns: Netns,
    netlink: Netlink,
    /// What was made so far. Held across each change, so that changes come one after the other.
    made: Mutex<Made>,
}

#[derive(Debug)]
struct Made {
    gwbridge: Option<Gwbridge>,
    mesh: Mesh,
    /// What the nft table says; None while there is none.
    loaded: Option<Rules>,
    sysctls: Sysctls,
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
        let made = Made { gwbridge: None, mesh: Mesh::default(), loaded: None, sysctls };
        let (resolv_conf, egress_mtu) = (config.resolv_conf, config.egress_mtu);
        Ok(Self { resolv_conf, egress_mtu, netns, netlink, made: Mutex::new(made) })
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

    /// Makes (or enters) a namespace and gives it its interfaces, routes and DNS sockets. On an error
    /// nothing is left of it.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, SandboxError> {
        let egress = if spec.egress { Some(self.lend_egress(&spec.id).await?) } else { None };
        let mut sandbox = Sandbox::new(spec.id, spec.netns)?;
        let outside = Outside { netns: &self.netns, netlink: &self.netlink, egress };
        if let Err(error) = sandbox.fill(&spec.interfaces, outside, spec.dns).await {
            for leftover in sandbox.remove(&self.netlink).await {
                tracing::warn!("{leftover}");
            }
            return Err(error);
        }
        Ok(sandbox)
    }

    /// Takes down what [`Self::create_sandbox`] made. Detach the ports from the engine first: an
    /// interface goes with its TAP.
    pub async fn remove_sandbox(&self, sandbox: Sandbox) -> Result<(), TeardownError> {
        TeardownError::unless_empty(sandbox.remove(&self.netlink).await)
    }

    /// Makes `plan` true: `skep0`, guard sockets, rules. Idempotent; takes the whole plan each time.
    /// After an error, call it again: nothing that was made by then is lost.
    pub async fn apply_mesh(&self, plan: MeshPlan) -> Result<MeshReport, MeshError> {
        let made = &mut *self.made.lock().await;
        made.mesh.prepare(plan, &self.netns, &self.netlink, &mut made.sysctls).await?;
        self.load_rules(made).await?;
        Ok(made.mesh.finish())
    }

    /// Tries ports again that another program held, and loads the nft table again if somebody removed
    /// it. Call it every [`RECHECK_PERIOD`] or so. Returns the conflicts that remain.
    pub async fn recheck_conflicts(&self) -> Result<Vec<PortConflict>, MeshError> {
        let made = &mut *self.made.lock().await;
        made.mesh.take_ports(&self.netns).await?;
        if made.loaded.is_some() && !nft::is_loaded(&self.netns).await.map_err(RulesError::Run)? {
            tracing::warn!("another program removed the nft table inet skep: it is loaded again");
            made.loaded = None;
        }
        self.load_rules(made).await?;
        Ok(made.mesh.conflicts())
    }

    /// Everything off; sysctls changed here are restored. Continues past errors and returns them all.
    pub async fn teardown(&self) -> Result<(), TeardownError> {
        let made = &mut *self.made.lock().await;
        let mut errors = Vec::new();
        if let Err(error) = nft::load(&self.netns, rules::REMOVE.to_owned()).await {
            errors.push(format!("cannot remove the nft table inet skep: {error}"));
        }
        errors.extend(self.delete_links().await);
        errors.extend(made.sysctls.restore(&self.netns).await);
        (made.gwbridge, made.mesh, made.loaded) = (None, Mesh::default(), None);
        TeardownError::unless_empty(errors)
    }

    async fn make_gwbridge(&self, made: &mut Made) -> Result<Ipv4Net, GwbridgeError> {
        let step = |what: &'static str| move |source| GwbridgeError::Step { step: what.to_owned(), source };
        let forward = made.sysctls.set(&self.netns, IP_FORWARD, "1").await;
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
        self.load_rules(made).await.map_err(GwbridgeError::from)?;
        let lent = made.gwbridge.as_ref().and_then(|bridge| Some((bridge.lend_address()?, bridge.mtu())));
        lent.ok_or_else(|| SandboxError::EgressFull { id: id.to_owned(), limit: MAX_CONTAINERS })
    }

    /// Replaces the table if it should say something else than it does.
    async fn load_rules(&self, made: &mut Made) -> Result<(), RulesError> {
        let wanted = made.mesh.rules(made.gwbridge.as_ref().map(|bridge| bridge.subnet));
        if made.loaded.as_ref() == Some(&wanted) {
            return Ok(());
        }
        nft::load(&self.netns, wanted.transaction()).await?;
        made.loaded = Some(wanted);
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
