//! The host layer against the real kernel: namespaces, bridge, nft, sockets. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod descriptors;
mod egress;
mod facts;
mod firewalls;
mod heal;
mod isolation;
mod leftovers;
mod mesh;
mod mesh_path;
mod quota;
mod sandbox;
mod sniffer;
mod sysctls;
mod world;
