//! Tasks: one run of one instance of a service. A task is one-shot; a retry is a new task in the same slot.

use crate::cluster::Meta;
use crate::service::TaskSpec;
use crate::{NetworkId, NodeId, ServiceId, TaskId};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Task {
    #[serde(rename = "ID")]
    pub id: TaskId,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: TaskSpec,
    /// Empty for an attachment.
    #[serde(rename = "ServiceID", default)]
    pub service_id: ServiceId,
    /// Name of the service at creation, or of the attachment: the first part of the task's name.
    #[serde(default)]
    pub service_name: String,
    /// 1-based; 0 for tasks of a global service and attachments.
    #[serde(default)]
    pub slot: u64,
    /// Empty until scheduled.
    #[serde(rename = "NodeID", default)]
    pub node_id: NodeId,
    pub status: TaskStatus,
    pub desired_state: TaskState,
    /// Not started before this time: the restart delay of the task it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// One per network, in the order of the spec; filled in by the allocator.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
}

impl Task {
    /// `web.1.<task id>`, or `agent.<node id>.<task id>` for a global service, as Docker names containers.
    pub fn name(&self) -> String {
        match self.slot {
            0 if self.service_id.as_str().is_empty() => self.service_name.clone(),
            0 => format!("{}.{}.{}", self.service_name, self.node_id, self.id),
            slot => format!("{}.{}.{}", self.service_name, slot, self.id),
        }
    }

    /// Whether the task may still run or come to run.
    pub fn is_live(&self) -> bool {
        self.status.state <= TaskState::Running
    }

    /// Whether the task is meant to run.
    pub fn is_wanted(&self) -> bool {
        self.desired_state <= TaskState::Running
    }

    pub fn is_attachment(&self) -> bool {
        self.spec.network_attachment_spec.is_some()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub network: NetworkId,
    /// Address with the network's prefix length.
    pub addr: Ipv4Net,
    #[serde(default)]
    pub aliases: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskStatus {
    pub timestamp: Timestamp,
    pub state: TaskState,
    #[serde(default)]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub err: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_status: Option<ContainerStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    #[serde(rename = "PID")]
    pub pid: i32,
    pub exit_code: i32,
}

/// In Swarm's order: a task only moves forward. States up to `Running` are live, the others terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    New,
    Pending,
    Assigned,
    Accepted,
    Preparing,
    Ready,
    Starting,
    Running,
    Complete,
    Shutdown,
    Failed,
    Rejected,
    Remove,
    Orphaned,
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_value(self).unwrap_or_default();
        f.write_str(text.as_str().unwrap_or("unknown"))
    }
}
