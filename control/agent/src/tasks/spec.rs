//! What a process of this node finds in its world. Pure.

use crate::executor::{ProcessIo, ProcessSpec};
use crate::host::HostFacts;
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};
use skep_model::service::ContainerSpec;
use std::fmt::Write;
use std::os::fd::OwnedFd;

/// The image of the executor `process`: the host's own file system.
const IMAGES: [&str; 2] = ["host", "host:latest"];
/// Where every container asks for names, as in Docker.
const RESOLVER: &str = "127.0.0.11";
/// How many digits of an id people see, and Docker takes as the hostname.
const SHORT_ID: usize = 12;

/// 64 hexadecimal digits that stand for the task wherever Docker would show a container.
pub(crate) fn container_id(task: &str) -> String {
    Sha256::digest(task).iter().fold(String::with_capacity(64), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

pub(crate) fn short_id(container_id: &str) -> &str {
    container_id.get(..SHORT_ID).unwrap_or(container_id)
}

/// Why this node can't run `image`; None if it can.
pub(crate) fn image_refusal(image: &str) -> Option<String> {
    (!IMAGES.contains(&image)).then(|| {
        format!("No such image: {image}: in this release there is only `host`, a command over the host's own files")
    })
}

/// The search domains stay the host's. `ndots:0` because names of services have no dots, as in Docker.
pub(crate) fn resolv_conf(facts: &HostFacts) -> String {
    let search = match facts.search.as_slice() {
        [] => String::new(),
        domains => format!("search {}\n", domains.join(" ")),
    };
    format!("nameserver {RESOLVER}\n{search}options ndots:0\n")
}

/// Docker's: loopback, and the container's own name at its first address.
pub(crate) fn hosts_file(hostname: &str, first: Option<Ipv4Net>) -> String {
    let own = first.map(|addr| format!("{}\t{hostname}\n", addr.addr())).unwrap_or_default();
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}")
}

/// The process of a service's task.
pub(super) fn process(
    id: &str,
    container: &ContainerSpec,
    netns: OwnedFd,
    first: Option<Ipv4Net>,
    facts: &HostFacts,
) -> ProcessSpec {
    let hostname = hostname(id, container);
    ProcessSpec {
        id: id.to_owned(),
        netns,
        args: container.command.iter().chain(&container.args).cloned().collect(),
        env: container.env.clone(),
        resolv_conf: resolv_conf(facts),
        hosts: hosts_file(&hostname, first),
        hostname,
        dir: container.dir.clone(),
        user: container.user.clone(),
        io: ProcessIo::Log,
        terminal: None,
    }
}

/// The spec's, else the first digits of the container's id.
fn hostname(id: &str, container: &ContainerSpec) -> String {
    match container.hostname.as_str() {
        "" => short_id(&container_id(id)).to_owned(),
        hostname => hostname.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_id_is_64_hex_digits_that_depend_on_the_task() {
        let id = container_id("t1");
        assert!(id.len() == 64 && id.bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert_ne!(id, container_id("t2"));
        assert_eq!(short_id(&id).len(), 12);
    }

    #[test]
    fn only_the_host_image_exists() {
        assert_eq!(image_refusal("host"), None);
        assert_eq!(image_refusal("host:latest"), None);
        assert!(image_refusal("nginx:alpine").unwrap().starts_with("No such image: nginx:alpine"));
    }

    #[test]
    fn the_hosts_search_domains_are_kept() {
        let mut facts = HostFacts::default();
        assert_eq!(resolv_conf(&facts), "nameserver 127.0.0.11\noptions ndots:0\n");
        facts.search = vec!["lan".to_owned(), "example.org".to_owned()];
        assert_eq!(resolv_conf(&facts), "nameserver 127.0.0.11\nsearch lan example.org\noptions ndots:0\n");
    }

    #[test]
    fn a_container_knows_itself_by_its_first_address() {
        let hosts = hosts_file("web-1", Some("10.0.1.7/24".parse().unwrap()));
        assert!(hosts.lines().any(|line| line == "10.0.1.7\tweb-1"), "{hosts}");
        assert!(!hosts_file("web-1", None).contains("web-1"));
    }

    #[test]
    fn command_overrides_come_before_arguments() {
        let container = ContainerSpec {
            command: vec!["redis-server".to_owned()],
            args: vec!["--port".to_owned(), "7000".to_owned()],
            ..ContainerSpec::default()
        };
        let netns = std::fs::File::open("/dev/null").unwrap().into();
        let spec = process("t1", &container, netns, None, &HostFacts::default());
        assert_eq!(spec.args, ["redis-server", "--port", "7000"]);
        assert_eq!(spec.hostname, short_id(&container_id("t1")));
    }
}
