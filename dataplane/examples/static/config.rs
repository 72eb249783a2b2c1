//! The TOML file, and what follows from it.

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;
use serde::Deserialize;
use skep_dataplane::ids::{MacAddr, PortId, Vni};
use skep_dataplane::snapshot::{
    Backend, BackendState, Endpoint, EndpointKind, Location, Network, Policy, Service, ServicePorts, Snapshot,
};
use std::fmt;
use std::net::Ipv4Addr;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub address: Ipv4Addr,
    #[serde(default = "vxlan_port")]
    pub port: u16,
    #[serde(default, rename = "network")]
    networks: Vec<NetworkConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkConfig {
    vni: u32,
    subnet: Ipv4Net,
    gateway: Option<Ipv4Addr>,
    #[serde(default = "mtu_over_ethernet")]
    mtu: u16,
    #[serde(default, rename = "endpoint")]
    endpoints: Vec<EndpointConfig>,
    #[serde(default, rename = "service")]
    services: Vec<ServiceConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointConfig {
    ip: Ipv4Addr,
    mac: Option<String>,
    local: Option<LocalConfig>,
    vtep: Option<Ipv4Addr>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LocalConfig {
    pub netns: Option<String>,
    pub ifname: String,
    #[serde(default = "offloads_on")]
    pub offloads: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceConfig {
    vip: Ipv4Addr,
    backends: Vec<Ipv4Addr>,
}

/// RFC 7348 §8.
fn vxlan_port() -> u16 {
    4789
}

/// 1500 less 20 outer IP, 8 UDP, 8 VXLAN and 14 inner Ethernet.
fn mtu_over_ethernet() -> u16 {
    1450
}

fn offloads_on() -> bool {
    true
}

/// A checked [`Config`]: what to open and what to publish.
pub(crate) struct Plan {
    pub taps: Vec<PlannedTap>,
    pub elsewhere: Vec<String>,
    pub snapshot: Snapshot,
}

pub(crate) struct PlannedTap {
    pub port: PortId,
    pub vni: Vni,
    pub address: Ipv4Net,
    pub mac: MacAddr,
    pub mtu: u16,
    pub local: LocalConfig,
}

impl fmt::Display for PlannedTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vni, address, mac, mtu) = (self.vni, self.address, self.mac, self.mtu);
        let LocalConfig { netns, ifname, offloads } = &self.local;
        let netns = netns.as_deref().unwrap_or("this namespace");
        let offloads = if *offloads { "on" } else { "off" };
        write!(f, "VNI {vni}: {address} is {ifname} in {netns} ({mac}, MTU {mtu}, offloads {offloads})")
    }
}

impl Config {
    pub(crate) fn plan(&self) -> Result<Plan> {
        let mut plan = Plan { taps: Vec::new(), elsewhere: Vec::new(), snapshot: Snapshot::default() };
        plan.snapshot.generation = 1;
        for network in &self.networks {
            let planned = network.plan(&mut plan).with_context(|| format!("network {}", network.vni))?;
            plan.snapshot.networks.push(planned);
        }
        Ok(plan)
    }
}

impl NetworkConfig {
    fn plan(&self, plan: &mut Plan) -> Result<Network> {
        let vni = Vni::new(self.vni).with_context(|| format!("a VNI is at most {}", Vni::MAX))?;
        let gateway = match self.gateway {
            Some(gateway) => gateway,
            None => self.subnet.hosts().last().context("a subnet without room for a gateway")?,
        };
        let mut endpoints = Vec::new();
        for endpoint in &self.endpoints {
            endpoints.push(
                self.endpoint(endpoint, vni, plan).with_context(|| format!("endpoint {}", endpoint.ip))?,
            );
        }
        for service in &self.services {
            plan.elsewhere.push(format!("VNI {vni}: {} is a service of {:?}", service.vip, service.backends));
        }
        Ok(Network {
            vni,
            policy: Policy::Plain,
            subnet: self.subnet,
            gateway,
            mtu: self.mtu,
            endpoints,
            services: self.services.iter().map(ServiceConfig::service).collect(),
            ingress: false,
        })
    }

    fn endpoint(&self, endpoint: &EndpointConfig, vni: Vni, plan: &mut Plan) -> Result<Endpoint> {
        let EndpointConfig { ip, mac, local, vtep } = endpoint;
        ensure!(self.subnet.contains(ip), "it is not in {}", self.subnet);
        let mac = match mac {
            Some(mac) => {
                parse_mac(mac).with_context(|| format!("`{mac}` is no link address (aa:bb:cc:dd:ee:ff)"))?
            }
            None => MacAddr::for_ip(*ip),
        };
        let location = match (local, vtep) {
            (Some(local), None) => {
                let port = PortId(u32::try_from(plan.taps.len())?);
                let address = Ipv4Net::new(*ip, self.subnet.prefix_len())?;
                plan.taps.push(PlannedTap { port, vni, address, mac, mtu: self.mtu, local: local.clone() });
                Location::Local(port)
            }
            (None, Some(vtep)) => {
                plan.elsewhere.push(format!("VNI {vni}: {ip} is at VTEP {vtep} ({mac})"));
                Location::Remote(*vtep)
            }
            _ => bail!("say where it is: either `local = {{ … }}` or `vtep = \"…\"`"),
        };
        Ok(Endpoint { ip: *ip, mac, location, kind: EndpointKind::Container })
    }
}

impl ServiceConfig {
    fn service(&self) -> Service {
        let backends = self.backends.iter().map(|ip| Backend { ip: *ip, state: BackendState::Active });
        Service { vip: self.vip, backends: backends.collect(), ports: ServicePorts::All }
    }
}

fn parse_mac(text: &str) -> Option<MacAddr> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    Some(MacAddr(bytes.try_into().ok()?))
}
