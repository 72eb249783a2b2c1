//! The addresses a network is asked to have.

use super::ApiError;
use super::network_spec::{not_there, refuse_extra};
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Smallest and largest subnet: four addresses are needed beside the tasks', and nobody routes more.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=29;
/// Each is looked at whenever the network gives an address away.
const MAX_RESERVED: usize = 256;
/// As long as a host name may be (RFC 1035 §2.3.4).
const MAX_NAME_BYTES: usize = 255;

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
    #[serde(rename = "IPRange")]
    pub range: Option<String>,
    #[serde(rename = "AuxiliaryAddresses")]
    pub reserved: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What is left open the allocator chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) subnet: Option<Ipv4Net>,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) range: Option<Ipv4Net>,
    pub(super) reserved: BTreeMap<String, Ipv4Addr>,
}

impl Ipam {
    pub(super) fn read(self) -> Result<Addresses, ApiError> {
        if let Some(driver) = self.driver.filter(|driver| !matches!(driver.as_str(), "" | "default")) {
            return Err(not_there(&format!("IPAM driver {driver}")));
        }
        if let Some((option, _)) = self.options.unwrap_or_default().first_key_value() {
            return Err(not_there(&format!("IPAM option {option}")));
        }
        let mut configs = self.config.unwrap_or_default();
        match (configs.pop(), configs.is_empty()) {
            (None, _) => Ok(Addresses::default()),
            (Some(config), true) => config.read(),
            (Some(_), false) => Err(not_there("a network of several subnets")),
        }
    }
}

impl IpamConfig {
    fn read(self) -> Result<Addresses, ApiError> {
        refuse_extra("IPAM ", &self.extra)?;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let subnet = given(self.subnet).map(|text| read_subnet(&text)).transpose()?;
        let of_subnet = |what: &str, text: &str| {
            subnet.ok_or_else(|| ApiError::invalid(format!("invalid {what} {text}: it needs a --subnet")))
        };
        let gateway =
            given(self.gateway).map(|text| read_host("gateway", &text, of_subnet("gateway", &text)?));
        let gateway = gateway.transpose()?;
        let range =
            given(self.range).map(|text| read_range(&text, of_subnet("IP range", &text)?)).transpose()?;
        let reserved = self.reserved.unwrap_or_default();
        if reserved.len() > MAX_RESERVED || reserved.keys().any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(ApiError::invalid(format!(
                "a network can keep {MAX_RESERVED} auxiliary addresses free at most, with names of \
                 {MAX_NAME_BYTES} bytes"
            )));
        }
        let reserved = reserved.into_iter().map(|(name, text)| {
            let addr = read_host("auxiliary address", &text, of_subnet("auxiliary address", &text)?)?;
            Ok((name, addr))
        });
        let reserved = reserved.collect::<Result<BTreeMap<_, _>, ApiError>>()?;
        let mut taken: BTreeSet<Ipv4Addr> = gateway.into_iter().collect();
        if let Some(addr) = reserved.values().find(|addr| !taken.insert(**addr)) {
            return Err(ApiError::invalid(format!("Address already in use: {addr} is given twice")));
        }
        Ok(Addresses { subnet, gateway, range, reserved })
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

fn read_host(what: &str, text: &str, subnet: Ipv4Net) -> Result<Ipv4Addr, ApiError> {
    let invalid = |why: &str| ApiError::invalid(format!("invalid {what} {text}: {why}"));
    let addr: Ipv4Addr = text.parse().map_err(|_| invalid("it should look like 10.1.2.1"))?;
    let inside = subnet.contains(&addr) && addr != subnet.network() && addr != subnet.broadcast();
    if inside { Ok(addr) } else { Err(invalid(&format!("it is no host address of {subnet}"))) }
}

fn read_range(text: &str, subnet: Ipv4Net) -> Result<Ipv4Net, ApiError> {
    let invalid = |why: &str| ApiError::invalid(format!("invalid IP range {text}: {why}"));
    let range: Ipv4Net = text.parse().map_err(|_| invalid("it should look like 10.1.2.128/25"))?;
    if range.trunc() != range {
        return Err(invalid(&format!("it should be {}", range.trunc())));
    }
    match subnet.contains(&range) {
        true => Ok(range),
        false => Err(invalid(&format!("it is no part of {subnet}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value) -> Result<Addresses, String> {
        let ipam: Ipam = serde_json::from_value(json!({"Config": [config]})).map_err(|e| e.to_string())?;
        ipam.read().map_err(|error| error.to_string())
    }

    #[test]
    fn ranges_and_reserved_addresses_lie_in_the_subnet() {
        let read_all = read(json!({
            "Subnet": "10.7.0.0/24", "Gateway": "10.7.0.9", "IPRange": "10.7.0.128/25",
            "AuxiliaryAddresses": {"router": "10.7.0.130"},
        }));
        let expected = Addresses {
            subnet: "10.7.0.0/24".parse().ok(),
            gateway: "10.7.0.9".parse().ok(),
            range: "10.7.0.128/25".parse().ok(),
            reserved: BTreeMap::from([("router".to_owned(), Ipv4Addr::new(10, 7, 0, 130))]),
        };
        assert_eq!(read_all, Ok(expected));
        assert_eq!(
            read(json!({"IPRange": "", "Gateway": "", "AuxiliaryAddresses": null})),
            Ok(Addresses::default())
        );
        for (extra, why) in [
            (json!({"IPRange": "10.8.0.0/25"}), "invalid IP range 10.8.0.0/25: it is no part of 10.7.0.0/24"),
            (json!({"IPRange": "10.7.0.1/25"}), "invalid IP range 10.7.0.1/25: it should be 10.7.0.0/25"),
            (json!({"IPRange": "10.0.0.0/8"}), "it is no part of 10.7.0.0/24"),
            (json!({"IPRange": "x"}), "invalid IP range x: it should look like 10.1.2.128/25"),
            (json!({"Subnet": null, "IPRange": "10.7.0.0/25"}), "IP range 10.7.0.0/25: it needs a --subnet"),
            (
                json!({"AuxiliaryAddresses": {"a": "10.7.0.255"}}),
                "invalid auxiliary address 10.7.0.255: it is no host address of 10.7.0.0/24",
            ),
            (
                json!({"Gateway": "10.7.0.1", "AuxiliaryAddresses": {"a": "10.7.0.1"}}),
                "Address already in use: 10.7.0.1 is given twice",
            ),
            (
                json!({"AuxiliaryAddresses": {"a": "10.7.0.4", "b": "10.7.0.4"}}),
                "Address already in use: 10.7.0.4 is given twice",
            ),
        ] {
            let mut config = json!({"Subnet": "10.7.0.0/24"});
            extra.as_object().into_iter().flatten().for_each(|(name, value)| config[name] = value.clone());
            let refusal = read(config).unwrap_err();
            assert!(refusal.contains(why), "{extra}: {refusal}");
        }
    }
}
