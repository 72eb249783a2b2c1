//! The body of `POST /networks/create`, and what of it this release can do.

use super::{ApiError, ipam, names, service_spec};
use serde::Deserialize;
use serde_json::{Map, Value};
use skep_model::network::NetworkSpec;
use std::collections::BTreeMap;

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
    pub ipam: Option<ipam::Ipam>,
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

impl CreateNetwork {
    /// The spec to store.
    pub(super) fn read(self) -> Result<NetworkSpec, ApiError> {
        self.check_driver()?;
        names::check(&self.name)?;
        self.check_flags()?;
        let plain = self.check_options()?;
        let labels = self.labels.unwrap_or_default();
        service_spec::check_labels(&labels)?;
        let addresses = self.ipam.map_or_else(|| Ok(ipam::Addresses::default()), ipam::Ipam::read)?;
        Ok(NetworkSpec {
            name: self.name,
            labels,
            options: self.options.unwrap_or_default(),
            subnet: addresses.subnet,
            gateway: addresses.gateway,
            ip_range: addresses.range,
            reserved: addresses.reserved,
            attachable: self.attachable.unwrap_or(false),
            plain,
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

    /// Whether the network is to be plain.
    fn check_options(&self) -> Result<bool, ApiError> {
        let mut plain = false;
        for (option, value) in self.options.iter().flatten() {
            match (option.as_str(), value.as_str()) {
                ("encrypted", value) => plain = !self.is_encrypted(value)?,
                ("com.docker.network.driver.mtu", _) => {
                    return Err(ApiError::unimplemented(
                        "option com.docker.network.driver.mtu is not supported: \
                         the MTU follows from the underlay's, leave it out",
                    ));
                }
                (other, _) => return Err(not_there(&format!("network option {other}"))),
            }
        }
        Ok(plain)
    }

    /// Docker reads the option as Go's strconv.ParseBool does; without a value it is asked for.
    fn is_encrypted(&self, value: &str) -> Result<bool, ApiError> {
        match value {
            "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            other => Err(ApiError::invalid(format!(
                "network {} was not created: its option encrypted is \"{other}\", choose true or false (without the \
                 option it is encrypted)",
                self.name
            ))),
        }
    }
}

pub(super) fn refuse_extra(path: &str, fields: &Map<String, Value>) -> Result<(), ApiError> {
    // Obsolete and always true: names are unique here.
    let asks = |(name, value): &(&String, &Value)| {
        !super::unsupported::asks_nothing(value) && name.as_str() != "CheckDuplicate"
    };
    match fields.iter().find(asks) {
        Some((name, _)) => Err(not_there(&format!("{path}{name}"))),
        None => Ok(()),
    }
}

pub(super) fn not_there(what: &str) -> ApiError {
    ApiError::unimplemented(format!("{what} is not supported in this release: leave it out"))
}
