//! What users can do, over the [`Db`](crate::Db): each operation checks what was asked against the latest state
//! and commits in the same transaction, so that two of them cannot both take a name or a port.
//!
//! Refusals carry Docker's words where Docker has any. What is not there yet is refused by name; nothing
//! a client asked for is silently left out. The functions block for one disk sync.

pub(crate) mod cluster;
pub(crate) mod cluster_spec;
mod container_spec;
mod defaults;
mod error;
#[cfg(test)]
mod hostile;
mod ipam;
pub mod lookup;
pub mod names;
mod network_spec;
pub(crate) mod networks;
pub(crate) mod nodes;
mod ports;
mod service_spec;
pub(crate) mod services;
#[cfg(test)]
mod tests;
mod unsupported;

pub use cluster::{Rotate, update as update_cluster};
pub use cluster_spec::{check as check_cluster_spec, in_force as cluster_spec};
pub use defaults::insert as insert_defaults;
pub use error::ApiError;
pub use ipam::{Ipam, IpamConfig};
pub use network_spec::CreateNetwork;
pub use networks::{create as create_network, remove as remove_network};
pub use nodes::{UpdateNode, remove as remove_node, update as update_node};
pub use service_spec::MAX_REPLICAS;
pub use services::{create as create_service, remove as remove_service, update as update_service};
