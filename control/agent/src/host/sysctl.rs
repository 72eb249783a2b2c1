//! Kernel settings under /proc/sys/net: changed, remembered, and put back.

use super::netns::Netns;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Lets the host forward between its uplink, the egress bridge and `skep0`.
const IP_FORWARD: &str = "ipv4/ip_forward";
const NET: &str = "/proc/sys/net";
const CONF: &str = "ipv4/conf";
const ON: &str = "1";
/// Changes to it mean that the machine was started anew and every setting with it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Settings of the host that outlive our interfaces, with the values they had.
#[derive(Debug)]
pub(super) struct Sysctls {
    record: Option<PathBuf>,
    changed: Changed,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Changed {
    settings: BTreeMap<String, Change>,
    /// Interfaces that forwarded while the host as a whole did not: writing [`IP_FORWARD`] writes that of
    /// every interface (devinet_sysctl_forward in net/ipv4/devinet.c).
    forwarding: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    from: String,
    to: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    boot: String,
    changed: Changed,
}

impl Sysctls {
    /// Starts with what a killed daemon wrote down, if this is still the same boot of the machine.
    pub(super) fn new(record: Option<PathBuf>) -> Self {
        let changed = record.as_deref().and_then(read_record).unwrap_or_default();
        Self { record, changed }
    }

    /// Lets the host forward, and remembers whether it did. The record is written before the change.
    /// Returns whether there was anything to change.
    pub(super) async fn forward(&mut self, netns: &Netns) -> io::Result<bool> {
        let (from, forwarding) = netns.run(|| Ok((read(IP_FORWARD)?, forwarding_interfaces()?))).await?;
        if from == ON {
            return Ok(false);
        }
        let change = Change { from, to: ON.to_owned() };
        if let Entry::Vacant(entry) = self.changed.settings.entry(IP_FORWARD.to_owned()) {
            entry.insert(change);
            self.changed.forwarding = forwarding;
        }
        self.write_record()?;
        netns.run(|| write(IP_FORWARD, ON)).await?;
        Ok(true)
    }

    /// Puts back every setting that still has the value it was given here; another one is somebody else's.
    pub(super) async fn restore(&mut self, netns: &Netns) -> Vec<String> {
        let mut errors = Vec::new();
        let Changed { settings, forwarding } = std::mem::take(&mut self.changed);
        for (key, change) in settings {
            let (path, from, interfaces) = (key.clone(), change.from.clone(), forwarding.clone());
            let put_back = move || {
                if read(&path)? != change.to {
                    return Ok(());
                }
                write(&path, &change.from)?;
                interfaces.iter().try_for_each(|name| forward_again(name))
            };
            if let Err(error) = netns.run(put_back).await {
                errors.push(format!("cannot restore the setting net/{key} to {from}: {error}"));
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

    /// Whole or not at all, whenever the machine stops.
    fn write_record(&self) -> io::Result<()> {
        let Some(path) = self.record.as_deref() else { return Ok(()) };
        let record = Record { boot: boot_id()?, changed: self.changed.clone() };
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&record)?)?;
        file.sync_all()?;
        fs::rename(new, path)
    }
}

fn forwarding_interfaces() -> io::Result<Vec<String>> {
    let names = fs::read_dir(Path::new(NET).join(CONF))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // `all` is the same setting as IP_FORWARD.
    let own = names.filter(|name| name != "all");
    Ok(own.filter(|name| read(&forwarding_of(name)).is_ok_and(|value| value == ON)).collect())
}

/// An interface that is gone has taken its setting with it.
fn forward_again(interface: &str) -> io::Result<()> {
    match write(&forwarding_of(interface), ON) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn forwarding_of(interface: &str) -> String {
    format!("{CONF}/{interface}/forwarding")
}

/// Sets what an interface of ours needs and takes with it when it goes. For the calling thread's namespace.
pub(super) fn write(key: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new(NET).join(key), value)
}

/// No IPv6 on this interface: no addresses, no router solicitations. A kernel without IPv6 agrees.
pub(super) fn disable_ipv6(interface: &str) -> io::Result<()> {
    match write(&format!("ipv6/conf/{interface}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether [`disable_ipv6`] has nothing to do.
pub(super) fn has_no_ipv6(interface: &str) -> bool {
    read(&format!("ipv6/conf/{interface}/disable_ipv6")).map_or(true, |value| value == "1")
}

pub(super) fn read(key: &str) -> io::Result<String> {
    Ok(fs::read_to_string(Path::new(NET).join(key))?.trim().to_owned())
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

fn read_record(path: &Path) -> Option<Changed> {
    let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (boot_id().ok()? == record.boot).then_some(record.changed)
}
