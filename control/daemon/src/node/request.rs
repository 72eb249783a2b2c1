//! What `swarm init` and `swarm join` ask of a node, and how the texts of it are read.

use crate::api::error::ApiError;
use ipnet::Ipv4Net;
use skep_model::cluster::{ClusterSpec, DEFAULT_DATA_PATH_PORT, DEFAULT_POOL, DEFAULT_SUBNET_SIZE};
use skep_model::data_path::DataCipher;
use skep_model::node::Availability;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

pub(crate) struct InitRequest {
    pub(crate) listen: String,
    pub(crate) advertise: String,
    pub(crate) data_path_addr: String,
    /// 0: the default, 4789.
    pub(crate) data_path_port: u32,
    /// Empty: the default, chacha20-poly1305.
    pub(crate) data_cipher: String,
    pub(crate) availability: Availability,
    pub(crate) default_addr_pool: Vec<String>,
    /// 0: the default, /24.
    pub(crate) subnet_size: u32,
    pub(crate) spec: ClusterSpec,
}

pub(crate) struct JoinRequest {
    pub(crate) listen: String,
    pub(crate) advertise: String,
    pub(crate) data_path_addr: String,
    pub(crate) managers: Vec<String>,
    pub(crate) token: String,
    pub(crate) availability: Availability,
}

/// Swarm's range for `--data-path-port`.
const DATA_PATH_PORTS: std::ops::RangeInclusive<u32> = 1024..=49151;
/// Swarm's limit: below /29 nothing is left besides gateway, VIP and a task or two.
const MAX_SUBNET_SIZE: u32 = 29;
pub(super) fn ipv4(addr: SocketAddr) -> Result<Ipv4Addr, ApiError> {
    match addr {
        SocketAddr::V4(addr) => Ok(*addr.ip()),
        SocketAddr::V6(_) => Err(ApiError::not_yet("an IPv6 underlay")),
    }
}

pub(super) fn data_path_port(port: u32) -> Result<u16, ApiError> {
    match port {
        0 => Ok(DEFAULT_DATA_PATH_PORT),
        port if DATA_PATH_PORTS.contains(&port) => Ok(u16::try_from(port).unwrap_or(DEFAULT_DATA_PATH_PORT)),
        port => Err(ApiError::bad_request(format!(
            "--data-path-port {port}: the port has to be between {} and {}",
            DATA_PATH_PORTS.start(),
            DATA_PATH_PORTS.end()
        ))),
    }
}

pub(super) fn data_cipher(name: &str) -> Result<DataCipher, ApiError> {
    match name {
        "" => Ok(DataCipher::default()),
        name => name.parse().map_err(ApiError::bad_request),
    }
}

pub(super) fn subnet_size(size: u32) -> Result<u8, ApiError> {
    match size {
        0 => Ok(DEFAULT_SUBNET_SIZE),
        1..=MAX_SUBNET_SIZE => Ok(u8::try_from(size).unwrap_or(DEFAULT_SUBNET_SIZE)),
        _ => Err(ApiError::bad_request(format!(
            "subnet size is out of range: {size} (at most {MAX_SUBNET_SIZE})"
        ))),
    }
}

pub(super) fn pools(texts: &[String]) -> Result<Vec<Ipv4Net>, ApiError> {
    if texts.is_empty() {
        return Ok(DEFAULT_POOL.parse().into_iter().collect());
    }
    texts
        .iter()
        .map(|text| {
            text.parse().map_err(|_| {
                ApiError::bad_request(format!(
                    "invalid --default-addr-pool '{text}': expected an IPv4 range, as in 10.0.0.0/8"
                ))
            })
        })
        .collect()
}

/// `HOST[:PORT]` of each manager, names looked up.
pub(super) async fn resolve(managers: &[String]) -> Result<Vec<SocketAddr>, ApiError> {
    let mut resolved = Vec::new();
    for manager in managers {
        let with_port = match manager.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => manager.clone(),
            Some(_) | None => format!("{manager}:{}", skep_model::cluster::DEFAULT_LISTEN_PORT),
        };
        let looked_up =
            tokio::task::spawn_blocking(move || with_port.to_socket_addrs().map(Vec::from_iter)).await;
        let unknown = || ApiError::bad_request(format!("cannot find manager '{manager}': give ADDR:2377"));
        let found = looked_up.map_err(ApiError::internal)?.map_err(|_| unknown())?;
        resolved.push(found.into_iter().find(SocketAddr::is_ipv4).ok_or_else(unknown)?);
    }
    Ok(resolved)
}

/// The address this host's routes choose towards the first manager. No packet is sent.
pub(super) fn route_to(managers: &[SocketAddr]) -> Result<Ipv4Addr, ApiError> {
    let manager =
        managers.first().ok_or_else(|| ApiError::bad_request("no manager to join: give ADDR:2377"))?;
    let chosen = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect(manager).and_then(|()| socket.local_addr()))
        .map_err(|error| ApiError::bad_request(format!("no route to the manager at {manager}: {error}")))?;
    ipv4(chosen)
}
