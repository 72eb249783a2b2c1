//! The body of `POST /networks/create`, and what of it this release can do.

use super::names;
use super::{ApiError, service_spec};
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::{Map, Value};
use skep_model::network::NetworkSpec;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Smallest and largest subnet: four addresses are needed beside the tasks', and nobody routes more.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=29;
/// Drivers Docker brings along that make networks of one host.
const HOST_DRIVERS: [&str; 7] = ["", "bridge", "host", "null", "none", "macvlan", "ipvlan"];

/// Docker's network create request. `null` stands for absent everywhere.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateNetwork {
    pub name: String,
    pub driver: Option<String>,
    pub scope: Option<String>,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    pub ipam: Option<Ipam>,
    pub internal: Option<bool>,
    pub attachable: Option<bool>,
    pub ingress: Option<bool>,
    pub config_only: Option<bool>,
    pub config_from: Option<Value>,
    pub options: Option<BTreeMap<String, String>>,
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    pub driver: Option<String>,
    pub options: Option<BTreeMap<String, String>>,
    pub config: Option<Vec<IpamConfig>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    pub subnet: Option<String>,
    pub gateway: Option<String>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl CreateNetwork {
    /// The spec to store.
    pub(super) fn read(self) -> Result<NetworkSpec, ApiError> {
        self.check_driver()?;
        names::check(&self.name)?;
        self.check_flags()?;
        self.check_options()?;
        let labels = self.labels.unwrap_or_default();
        service_spec::check_labels(&labels)?;
        let (subnet, gateway) = self.ipam.map_or(Ok((None, None)), Ipam::read)?;
        Ok(NetworkSpec {
            name: self.name,
            labels,
            options: self.options.unwrap_or_default(),
            subnet,
            gateway,
            attachable: self.attachable.unwrap_or(false),
            internal: self.internal.unwrap_or(false),
            ingress: false,
        })
    }

    fn check_driver(&self) -> Result<(), ApiError> {
        let driver = self.driver.as_deref().unwrap_or("");
        if driver == "overlay" {
            return Ok(());
        }
        if HOST_DRIVERS.contains(&driver) {
            let shown = if driver.is_empty() { "bridge" } else { driver };
            return Err(ApiError::unimplemented(format!(
                "network driver {shown} is not supported in this release: use --driver overlay"
            )));
        }
        Err(ApiError::NotFound(format!("plugin \"{driver}\" not found")))
    }

    fn check_flags(&self) -> Result<(), ApiError> {
        let scope = self.scope.as_deref().unwrap_or("");
        if !matches!(scope, "" | "swarm") {
            return Err(ApiError::invalid(format!("an overlay network has scope swarm, not {scope}")));
        }
        let config_from =
            self.config_from.as_ref().is_some_and(|value| !super::unsupported::asks_nothing(value));
        let asked = [
            (self.enable_ipv6 == Some(true), "IPv6"),
            (self.enable_ipv4 == Some(false), "a network without IPv4"),
            (self.ingress == Some(true), "another ingress network"),
            (self.config_only == Some(true), "a configuration-only network"),
            (config_from, "a network made from a configuration-only one"),
        ];
        match asked.into_iter().find(|(asked, _)| *asked) {
            Some((_, what)) => Err(not_there(what)),
            None => refuse_extra("", &self.extra),
        }
    }

    fn check_options(&self) -> Result<(), ApiError> {
        for (option, value) in self.options.iter().flatten() {
            match (option.as_str(), value.as_str()) {
                ("encrypted", "false" | "0") => {}
                ("encrypted", _) => {
                    return Err(ApiError::unimplemented(format!(
                        "network {} was not created: this release has plain networks only, and sends nothing \
                         plain that was asked to be encrypted (leave `--opt encrypted` out for a plain one)",
                        self.name
                    )));
                }
                ("com.docker.network.driver.mtu", _) => {
                    return Err(ApiError::unimplemented(
                        "option com.docker.network.driver.mtu is not supported: \
                         the MTU follows from the underlay's, leave it out",
                    ));
                }
                (other, _) => return Err(not_there(&format!("network option {other}"))),
            }
        }
        Ok(())
    }
}

impl Ipam {
    fn read(self) -> Result<(Option<Ipv4Net>, Option<Ipv4Addr>), ApiError> {
        if let Some(driver) = self.driver.filter(|driver| !matches!(driver.as_str(), "" | "default")) {
            return Err(not_there(&format!("IPAM driver {driver}")));
        }
        if let Some((option, _)) = self.options.unwrap_or_default().first_key_value() {
            return Err(not_there(&format!("IPAM option {option}")));
        }
        let mut configs = self.config.unwrap_or_default();
        match (configs.pop(), configs.is_empty()) {
            (None, _) => Ok((None, None)),
            (Some(config), true) => config.read(),
            (Some(_), false) => Err(not_there("a network of several subnets")),
        }
    }
}

impl IpamConfig {
    fn read(self) -> Result<(Option<Ipv4Net>, Option<Ipv4Addr>), ApiError> {
        refuse_extra("IPAM ", &self.extra)?;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let subnet = given(self.subnet).map(|text| read_subnet(&text)).transpose()?;
        let gateway = given(self.gateway).map(|text| read_gateway(&text, subnet)).transpose()?;
        Ok((subnet, gateway))
    }
}

fn read_subnet(text: &str) -> Result<Ipv4Net, ApiError> {
    if text.contains(':') {
        return Err(not_there("IPv6"));
    }
    let invalid = |why: &str| ApiError::invalid(format!("invalid subnet {text}: {why}"));
    let subnet: Ipv4Net = text.parse().map_err(|_| invalid("it should look like 10.1.2.0/24"))?;
    if subnet.trunc() != subnet {
        return Err(invalid(&format!("it should be {}", subnet.trunc())));
    }
    if !PREFIXES.contains(&subnet.prefix_len()) {
        return Err(invalid(&format!(
            "its length must be from /{} to /{}",
            PREFIXES.start(),
            PREFIXES.end()
        )));
    }
    // Nobody can own these: this network, loopback, link-local, multicast, reserved.
    let unusable = [
        Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8),
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
        Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3),
    ];
    match unusable.iter().find(|net| net.contains(&subnet) || subnet.contains(*net)) {
        Some(net) => Err(invalid(&format!("addresses of {net} cannot be given to hosts"))),
        None => Ok(subnet),
    }
}

fn read_gateway(text: &str, subnet: Option<Ipv4Net>) -> Result<Ipv4Addr, ApiError> {
    let invalid = |why: &str| ApiError::invalid(format!("invalid gateway {text}: {why}"));
    let subnet = subnet.ok_or_else(|| invalid("a gateway needs a --subnet"))?;
    let gateway: Ipv4Addr = text.parse().map_err(|_| invalid("it should look like 10.1.2.1"))?;
    let inside = subnet.contains(&gateway) && gateway != subnet.network() && gateway != subnet.broadcast();
    if inside { Ok(gateway) } else { Err(invalid(&format!("it is no host address of {subnet}"))) }
}

fn refuse_extra(path: &str, fields: &Map<String, Value>) -> Result<(), ApiError> {
    // Obsolete and always true: names are unique here.
    let asks = |(name, value): &(&String, &Value)| {
        !super::unsupported::asks_nothing(value) && name.as_str() != "CheckDuplicate"
    };
    match fields.iter().find(asks) {
        Some((name, _)) => Err(not_there(&format!("{path}{name}"))),
        None => Ok(()),
    }
}

fn not_there(what: &str) -> ApiError {
    ApiError::unimplemented(format!("{what} is not supported in this release: leave it out"))
}
