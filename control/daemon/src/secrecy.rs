//! Keys leave this process neither by a core dump, nor by a debugger without privileges, nor through swap.
//!
//! Tasks inherit none of it: a program that is executed is dumpable again, and locks are of the address space that made
//! them. The limit of core files stays as it is for the same reason; a process that is not dumpable leaves none anyway.

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;

/// Before there are threads or keys. What this host does not allow is told, and Skep goes on without it.
pub(crate) fn keep() {
    if let Err(error) = prctl::set_dumpable(false) {
        tracing::warn!(%error, "a core dump of this daemon would hold its keys: the kernel does not let it refuse them");
    }
    match may_lock() {
        true => lock(),
        false => tracing::warn!(
            "this daemon lacks CAP_IPC_LOCK and cannot lock its memory: keys may reach swap; grant the capability, or \
             encrypt the swap, or turn it off"
        ),
    }
}

/// Without the capability the kernel would count what is locked, and refuse memory beyond the limit.
fn may_lock() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_IPC_LOCK).unwrap_or(false)
}

/// Pages are locked once they are touched: what is reserved and never used takes no memory.
fn lock() {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    if let Err(error) = lock_all(on_fault) {
        tracing::warn!(%error, "this daemon's memory cannot be locked: keys may reach swap; encrypt it, or turn it off");
    }
}

fn lock_all(on_fault: MlockAllFlags) -> Result<(), Errno> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_keeps_its_keys_is_not_dumpable_and_its_memory_locked() {
        keep();
        assert_eq!(prctl::get_dumpable(), Ok(false));
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().trim();
        assert_eq!(locked != "0 kB", may_lock(), "{locked}");
        // Other tests of this process may be debugged.
        prctl::set_dumpable(true).unwrap();
        nix::sys::mman::munlockall().unwrap();
    }
}
