//! Kernel settings under /proc/sys/net: changed, remembered, and put back.

use super::netns::Netns;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Lets the host forward between its uplink, the egress bridge and `skep0`.
pub(super) const IP_FORWARD: &str = "ipv4/ip_forward";
/// Changes to it mean that the machine was started anew and every setting with it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Settings of the host that outlive our interfaces, with the values they had.
#[derive(Debug)]
pub(super) struct Sysctls {
    record: Option<PathBuf>,
    before: BTreeMap<String, Change>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    from: String,
    to: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    boot: String,
    changed: BTreeMap<String, Change>,
}

impl Sysctls {
    /// Starts with what a killed daemon wrote down, if this is still the same boot of the machine.
    pub(super) fn new(record: Option<PathBuf>) -> Self {
        let before = record.as_deref().and_then(read_record).unwrap_or_default();
        Self { record, before }
    }

    /// Sets `key` and remembers what it was. The record is written before the change.
    pub(super) async fn set(
        &mut self,
        netns: &Netns,
        key: &'static str,
        value: &'static str,
    ) -> io::Result<()> {
        let from = netns.run(move || read(key)).await?;
        if from == value {
            return Ok(());
        }
        self.before.entry(key.to_owned()).or_insert(Change { from, to: value.to_owned() });
        self.write_record()?;
        netns.run(move || write(key, value)).await
    }

    /// Puts back every setting that still has the value it was given here.
    pub(super) async fn restore(&mut self, netns: &Netns) -> Vec<String> {
        let mut errors = Vec::new();
        for (key, change) in std::mem::take(&mut self.before) {
            let Change { from, to } = change.clone();
            let path = key.clone();
            let put_back = move || if read(&path)? == to { write(&path, &from) } else { Ok(()) };
            if let Err(error) = netns.run(put_back).await {
                errors.push(format!("cannot restore the setting net/{key} to {}: {error}", change.from));
            }
        }
        if let Some(path) = self.record.as_deref()
            && let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            errors.push(format!("cannot remove {}: {error}", path.display()));
        }
        errors
    }

    fn write_record(&self) -> io::Result<()> {
        let Some(path) = self.record.as_deref() else { return Ok(()) };
        let record = Record { boot: boot_id()?, changed: self.before.clone() };
        fs::write(path, serde_json::to_vec_pretty(&record)?)
    }
}

/// Sets what an interface of ours needs and takes with it when it goes. For the calling thread's namespace.
pub(super) fn write(key: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys/net").join(key), value)
}

/// No IPv6 on this interface: no addresses, no router solicitations. A kernel without IPv6 agrees.
pub(super) fn disable_ipv6(interface: &str) -> io::Result<()> {
    match write(&format!("ipv6/conf/{interface}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read(key: &str) -> io::Result<String> {
    Ok(fs::read_to_string(Path::new("/proc/sys/net").join(key))?.trim().to_owned())
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

fn read_record(path: &Path) -> Option<BTreeMap<String, Change>> {
    let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (boot_id().ok()? == record.boot).then_some(record.changed)
}
