//! Objects as the store keeps them: key `<kind>/<id>`, value JSON.

use super::HEAD;
use crate::state::Change;
use crate::store::{Event, Txn};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the store's record {key} cannot be read: {source}")]
    Value { key: String, source: serde_json::Error },
    #[error("the store's record {0} is of an unknown kind")]
    Kind(String),
}

/// Adds the change to the transaction.
pub(super) fn encode(change: &Change, txn: &mut Txn) {
    match change {
        Change::PutCluster(cluster) => txn.puts.push((format!("cluster/{}", cluster.id), json(cluster))),
        Change::PutNode(node) => txn.puts.push((format!("node/{}", node.id), json(node))),
        Change::PutNetwork(network) => txn.puts.push((format!("network/{}", network.id), json(network))),
        Change::PutService(service) => txn.puts.push((format!("service/{}", service.id), json(service))),
        Change::PutTask(task) => txn.puts.push((format!("task/{}", task.id), json(task))),
        Change::DeleteNode(id) => txn.deletes.push(format!("node/{id}")),
        Change::DeleteNetwork(id) => txn.deletes.push(format!("network/{id}")),
        Change::DeleteService(id) => txn.deletes.push(format!("service/{id}")),
        Change::DeleteTask(id) => txn.deletes.push(format!("task/{id}")),
    }
}

/// The object a record holds, as the change that puts it.
pub(super) fn decode(key: &str, value: &[u8]) -> Result<Change, DecodeError> {
    let (kind, _) = key.split_once('/').unwrap_or((key, ""));
    Ok(match kind {
        "cluster" => Change::PutCluster(parse(key, value)?),
        "node" => Change::PutNode(parse(key, value)?),
        "network" => Change::PutNetwork(parse(key, value)?),
        "service" => Change::PutService(parse(key, value)?),
        "task" => Change::PutTask(parse(key, value)?),
        _ => return Err(DecodeError::Kind(key.to_owned())),
    })
}

/// What a commit of another writer changed.
pub(super) fn changes(events: &[Event]) -> Result<Vec<Change>, DecodeError> {
    events.iter().filter_map(|event| change(event).transpose()).collect()
}

fn change(event: &Event) -> Result<Option<Change>, DecodeError> {
    match event {
        Event::Put { key, .. } if key == HEAD => Ok(None),
        Event::Put { key, value } => decode(key, value).map(Some),
        Event::Delete { key } => deletion(key).map(Some),
    }
}

fn deletion(key: &str) -> Result<Change, DecodeError> {
    match key.split_once('/') {
        Some(("node", id)) => Ok(Change::DeleteNode(id.into())),
        Some(("network", id)) => Ok(Change::DeleteNetwork(id.into())),
        Some(("service", id)) => Ok(Change::DeleteService(id.into())),
        Some(("task", id)) => Ok(Change::DeleteTask(id.into())),
        _ => Err(DecodeError::Kind(key.to_owned())),
    }
}

fn json<T: Serialize>(object: &T) -> Vec<u8> {
    serde_json::to_vec(object).expect("the model's objects have text keys and serialize without failing")
}

fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(value).map_err(|source| DecodeError::Value { key: key.to_owned(), source })
}
