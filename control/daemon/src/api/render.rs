//! Stored objects as the JSON Docker's clients read.

use ipnet::Ipv4Net;
use serde_json::{Map, Value, json};
use skep_manager::state::State;
use skep_model::cluster::Cluster;
use skep_model::network::{Network, NetworkAllocation};
use skep_model::node::{Node, Role};
use skep_model::service::{EndpointMode, Protocol, Service};
use skep_model::task::{Task, TaskState};

/// VXLAN's id list as Docker's overlay driver names it.
const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// As in `docker network create --opt encrypted`.
const ENCRYPTED_OPTION: &str = "encrypted";
/// The role of the only gateway users know by Docker's name (see ARCHITECTURE.md, egress).
pub(crate) const GATEWAY_BRIDGE: &str = "docker_gwbridge";

/// An object as it is stored, without `hidden` fields.
fn stored(object: &impl serde::Serialize, hidden: &[&str]) -> Map<String, Value> {
    let mut fields = match serde_json::to_value(object) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    };
    for field in hidden {
        fields.remove(*field);
    }
    fields
}

pub(crate) fn node(node: &Node, cluster: Option<&Cluster>) -> Value {
    let mut fields = stored(node, &["skep"]);
    if let (Some(Value::Object(description)), Some(cluster)) = (fields.get_mut("Description"), cluster) {
        description.insert("TLSInfo".to_owned(), tls_info(cluster));
        if let Some(Value::Object(engine)) = description.get_mut("Engine") {
            engine.insert("Plugins".to_owned(), json!([{ "Type": "Network", "Name": "overlay" }]));
        }
    }
    Value::Object(fields)
}

pub(crate) fn is_manager(node: &Node) -> bool {
    node.spec.role == Role::Manager
}

fn tls_info(cluster: &Cluster) -> Value {
    json!({ "TrustRoot": cluster.root_ca })
}

/// The cluster object of `/info`: everything but the tokens.
pub(crate) fn cluster_info(cluster: &Cluster) -> Value {
    json!({
        "ID": cluster.id,
        "Version": cluster.meta.version,
        "CreatedAt": cluster.meta.created_at,
        "UpdatedAt": cluster.meta.updated_at,
        "Spec": skep_manager::api::cluster_spec(cluster),
        "TLSInfo": tls_info(cluster),
        "RootRotationInProgress": false,
        "DefaultAddrPool": cluster.default_addr_pool,
        "SubnetSize": cluster.subnet_size,
        "DataPathPort": cluster.data_path_port,
        "DataCipher": cluster.data_cipher,
    })
}

/// `GET /swarm`.
pub(crate) fn swarm(cluster: &Cluster) -> Value {
    let mut swarm = cluster_info(cluster);
    swarm["JoinTokens"] = json!(cluster.join_tokens);
    swarm
}

pub(crate) fn network(network: &Network) -> Value {
    let options = network.allocation.map(|allocation| (VNI_OPTION.to_owned(), allocation.vni.to_string()));
    // Last, so that what was decided is shown, however it was asked for.
    let encrypted = [(ENCRYPTED_OPTION.to_owned(), (!network.spec.plain).to_string())];
    let options: Map<String, Value> = network
        .spec
        .options
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain(options)
        .chain(encrypted)
        .map(|(key, value)| (key, Value::String(value)))
        .collect();
    let addresses = network
        .allocation
        .map(|allocation| json!([addresses(network, &allocation)]))
        .unwrap_or_else(|| json!([]));
    json!({
        "Name": network.spec.name,
        "Id": network.id,
        "Created": network.meta.created_at,
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": addresses },
        "Internal": network.spec.internal,
        "Attachable": network.spec.attachable,
        "Ingress": network.spec.ingress,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": null,
        "Options": options,
        "Labels": network.spec.labels,
    })
}

/// One entry of `IPAM.Config`.
fn addresses(network: &Network, allocation: &NetworkAllocation) -> Value {
    let mut config = json!({ "Subnet": allocation.subnet, "Gateway": allocation.gateway });
    if let Some(range) = network.spec.ip_range {
        config["IPRange"] = json!(range);
    }
    if !network.spec.reserved.is_empty() {
        config["AuxiliaryAddresses"] = json!(network.spec.reserved);
    }
    config
}

/// The node's egress bridge, listed the way Swarm's users know it.
pub(crate) fn gateway_bridge(subnet: Ipv4Net) -> Value {
    json!({
        "Name": GATEWAY_BRIDGE,
        "Id": format!("{:0<64}", "736b6570677762726964676500"),
        "Created": "1970-01-01T00:00:00Z",
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": [{ "Subnet": subnet }] },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": {},
        "Options": {
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
            "com.docker.network.bridge.name": "skep_gwbridge",
        },
        "Labels": {},
    })
}

pub(crate) fn service(service: &Service, insert_defaults: bool) -> Value {
    let mut value = Value::Object(stored(service, &["PendingReason"]));
    let spec = &mut value["Spec"];
    if !service.spec.mode.is_global() {
        spec["Mode"]["Replicated"]["Replicas"] = json!(service.spec.mode.replicas());
    }
    if insert_defaults {
        skep_manager::api::insert_defaults(spec);
    }
    value
}

fn set_default(object: &mut Value, key: &str, default: Value) {
    if let Value::Object(fields) = object {
        fields.entry(key).or_insert(default);
    }
}

/// `ServiceStatus` of `GET /services?status=true`.
pub(crate) fn service_status(service: &Service, state: &State) -> Value {
    let running = state
        .tasks_of(&service.id)
        .filter(|task| {
            task.status.state == TaskState::Running && task.is_wanted() && on_live_node(task, state)
        })
        .count() as u64;
    let desired = match service.spec.mode.is_global() {
        true => state.tasks_of(&service.id).filter(|task| task.is_wanted()).count() as u64,
        false => service.spec.mode.replicas(),
    };
    json!({ "RunningTasks": running, "DesiredTasks": desired, "CompletedTasks": 0 })
}

fn on_live_node(task: &Task, state: &State) -> bool {
    state.nodes.get(&task.node_id).is_some_and(|node| node.status.state != skep_model::node::NodeState::Down)
}

pub(crate) fn task(task: &Task, state: &State) -> Value {
    let mut fields = stored(task, &["attachments", "Attachments", "ServiceName", "NotBefore"]);
    let attachments: Vec<Value> = task
        .attachments
        .iter()
        .filter_map(|attachment| {
            let network = state.networks.get(&attachment.network)?;
            Some(json!({ "Network": attached_network(network), "Addresses": [attachment.addr] }))
        })
        .collect();
    fields.insert("NetworksAttachments".to_owned(), Value::Array(attachments));
    fields.insert("Labels".to_owned(), json!({}));
    let mut value = Value::Object(fields);
    // Visualizer reads the container's id without a null check.
    set_default(
        &mut value["Status"],
        "ContainerStatus",
        json!({ "ContainerID": "", "PID": 0, "ExitCode": 0 }),
    );
    set_default(&mut value["Status"], "PortStatus", json!({}));
    if let Some(note) = port_note(task, state)
        && task.status.err.is_empty()
    {
        value["Status"]["Err"] = Value::String(note);
    }
    value
}

fn attached_network(network: &Network) -> Value {
    json!({
        "ID": network.id,
        "Version": network.meta.version,
        "CreatedAt": network.meta.created_at,
        "UpdatedAt": network.meta.updated_at,
        "Spec": {
            "Name": network.spec.name,
            "Labels": network.spec.labels,
            "DriverConfiguration": {},
            "Attachable": network.spec.attachable,
            "Ingress": network.spec.ingress,
            "Internal": network.spec.internal,
            "Scope": "swarm",
        },
        "DriverState": { "Name": "overlay" },
        "IPAMOptions": {
            "Driver": { "Name": "default" },
            "Configs": network.allocation.map(|allocation| vec![addresses(network, &allocation)]),
        },
    })
}

/// Which nodes leave a published port of the task's service to another program. Told on the tasks of
/// that node, or on all of the service's running tasks where that node runs none.
fn port_note(task: &Task, state: &State) -> Option<String> {
    if task.status.state != TaskState::Running {
        return None;
    }
    let service = state.services.get(&task.service_id)?;
    let runs_there = |node: &Node| {
        state.tasks_of(&service.id).any(|t| t.node_id == node.id && t.status.state == TaskState::Running)
    };
    let notes: Vec<String> = state
        .nodes
        .values()
        .filter(|node| node.id == task.node_id || !runs_there(node))
        .flat_map(|node| node.skep.port_conflicts.iter().map(move |conflict| (node, conflict)))
        .filter(|(_, conflict)| publishes(service, conflict.protocol, conflict.port))
        .map(|(node, conflict)| {
            let host = &node.description.hostname;
            format!(
                "port {}/{} is not served on {host}: {} has it",
                conflict.port, conflict.protocol, conflict.holder
            )
        })
        .collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

fn publishes(service: &Service, protocol: Protocol, port: u16) -> bool {
    service.endpoint.spec.mode == EndpointMode::Vip
        && service.endpoint.ports.iter().any(|p| p.protocol == protocol && p.published_port == port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use skep_model::cluster::Meta;
    use skep_model::network::NetworkSpec;

    fn options(asked: Option<&str>, plain: bool) -> Value {
        let options = asked.map(|value| ("encrypted".to_owned(), value.to_owned())).into_iter().collect();
        let spec = NetworkSpec { name: "backend".to_owned(), options, plain, ..NetworkSpec::default() };
        let meta = Meta::new(Timestamp::UNIX_EPOCH);
        network(&Network { id: "x".into(), meta, spec, allocation: None })["Options"].clone()
    }

    #[test]
    fn every_overlay_says_whether_it_is_encrypted_however_it_was_asked_for() {
        for (asked, plain, shown) in [
            (None, false, "true"),
            (Some(""), false, "true"),
            (Some("0"), true, "false"),
            (None, true, "false"),
        ] {
            assert_eq!(options(asked, plain), json!({ "encrypted": shown }), "{asked:?}");
        }
        assert_eq!(gateway_bridge("172.18.0.0/16".parse().unwrap())["Options"]["encrypted"], Value::Null);
    }
}
