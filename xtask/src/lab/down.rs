//! `lab down`: whatever there is of a lab goes, whichever step an `up` got to.

use super::host;
use super::layout::Lab;
use crate::program::run_line;
use anyhow::{Result, bail};
use std::fs;
use std::io::ErrorKind;

/// Removes processes, namespaces, links and files. What cannot be removed doesn't keep the rest.
pub(crate) fn down(lab: &Lab) -> Result<()> {
    let mut failures = Vec::new();
    for host in lab.hosts()? {
        failures.extend(host.power_off().err());
    }
    // Interfaces end with their namespaces; mounts ended with the hosts.
    for netns in lab.namespaces()? {
        failures.extend(end_processes(&netns).err());
        failures.extend(run_line(&format!("ip netns del {netns}")).err());
    }
    failures.extend(remove_files(lab).err());
    if failures.is_empty() {
        return Ok(());
    }
    let sentences: Vec<String> = failures.iter().map(|failure| format!("{failure:#}")).collect();
    bail!("not everything of the lab `{}` could be removed:\n{}", lab.name(), sentences.join("\n"))
}

/// What a killed `up` was about to make a host of.
fn end_processes(netns: &str) -> Result<()> {
    let listing = run_line(&format!("ip netns pids {netns}"))?;
    listing.lines().filter_map(|pid| pid.parse().ok()).try_for_each(host::kill)
}

pub(super) fn remove_files(lab: &Lab) -> Result<()> {
    for directory in [lab.directory(), lab.programs()] {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                bail!("cannot remove {}: {error}", directory.display())
            }
            _ => {}
        }
    }
    Ok(())
}
