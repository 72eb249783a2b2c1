//! The stream between an agent and its manager: one JSON message a line in each direction of one
//! HTTP/2 request (`POST /v1/session`) over mutual TLS. The agent opens it and speaks first.

use crate::TaskId;
use crate::assign::Assignments;
use crate::node::{NodeDescription, PortConflict};
use crate::task::{Attachment, TaskStatus};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Longest line either side accepts; a COMPLETE set of a large cluster fits.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToManager {
    /// First message of every session.
    Hello(Hello),
    /// Sent every heartbeat period (see [`ToAgent::Welcome`]); three missed ones make the node `down`.
    Heartbeat,
    /// The last assignment message could not be applied: send a COMPLETE one.
    Resync,
    /// Assignments are in place on the node, all of them, up to the message that resulted in `revision`.
    Applied {
        revision: u64,
    },
    /// Repeated until acknowledged with [`ToAgent::StatusAccepted`].
    TaskStatuses {
        sequence: u64,
        statuses: Vec<TaskReport>,
    },
    /// The whole list, each time it changes.
    PortConflicts(Vec<PortConflict>),
    /// Ask for an endpoint on an attachable network for something the node runs itself.
    Attach(AttachRequest),
    Detach {
        task: TaskId,
    },
    /// Answers to [`ToAgent::ReadLogs`].
    Log {
        request: u64,
        lines: Vec<LogLine>,
    },
    LogEnd {
        request: u64,
        error: Option<String>,
    },
    /// The node leaves the cluster: it is down at once and its tasks go elsewhere. The manager ends the
    /// stream when that is written.
    Leave,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub description: NodeDescription,
    pub data_path_addr: Ipv4Addr,
    /// Subnets the host routes by itself (not through Skep).
    pub routed: Vec<Ipv4Net>,
    /// Attachments the node still holds; the manager removes the others of this node.
    pub attachments: Vec<TaskId>,
    /// Tasks the node still runs. Assigned tasks that are missing here and had been started have failed.
    pub running: Vec<TaskId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    pub task: TaskId,
    pub status: TaskStatus,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Chosen by the agent; the answer carries it.
    pub request: u64,
    /// Name or id.
    pub network: String,
    /// Name of the attachment in DNS; empty: none.
    pub name: String,
    /// A certain address of the network, if free.
    pub addr: Option<Ipv4Addr>,
    /// What is attached, for people who look: a container id or a namespace path.
    pub container: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToAgent {
    /// First message of every session.
    Welcome {
        heartbeat_ms: u64,
        /// The manager's clock, so that a node whose own is wrong can say so.
        #[serde(default)]
        now: Option<jiff::Timestamp>,
    },
    Assignments(Assignments),
    StatusAccepted {
        sequence: u64,
    },
    Attached {
        request: u64,
        result: Result<Attached, String>,
    },
    ReadLogs(ReadLogs),
    /// The reader went away.
    StopLogs {
        request: u64,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attached {
    pub task: TaskId,
    pub name: String,
    pub attachment: Attachment,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadLogs {
    pub request: u64,
    pub task: TaskId,
    pub follow: bool,
    /// Only the last N lines; None: all.
    pub tail: Option<usize>,
    pub since: Option<jiff::Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    pub time: jiff::Timestamp,
    pub stream: LogStream,
    /// Without the line's end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    Stdout,
    Stderr,
}
