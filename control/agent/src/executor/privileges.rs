//! What a task may do: Docker's default capabilities, and nothing of its parent's.

use super::sys;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};
use std::io;

/// Docker's default set, 0xa80425fb as a mask.
const CAPABILITIES: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_MKNOD,
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_SETFCAP,
];
/// The kernel's sets have 64 bits.
const MAX_CAPABILITIES: u32 = 64;
/// First descriptor after the standard streams.
const FIRST_FD: u32 = 3;

/// A session, keyring, umask, signal mask and dispositions of the task's own; no descriptor but the three streams
/// survives the exec.
pub(super) fn leave_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    match sys::new_session_keyring() {
        // A kernel without keyrings has none to leave.
        Err(error) if error.raw_os_error() != Some(libc::ENOSYS) => return Err(error),
        _ => umask(Mode::S_IWGRP | Mode::S_IWOTH),
    };
    sys::reset_signals();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    sys::close_on_exec_from(FIRST_FD)
}

/// For good: the bounding set and no_new_privs keep set-user-id programs and file capabilities from bringing back
/// what is given up here.
pub(super) fn give_up() -> io::Result<()> {
    let kept: CapsHashSet = CAPABILITIES.into_iter().collect();
    let kept_mask = CAPABILITIES.iter().fold(0, |mask, capability| mask | capability.bitmask());
    // By number: a newer kernel may have capabilities that no library here has a name for.
    for capability in (0..MAX_CAPABILITIES).filter(|bit| kept_mask & (1 << bit) == 0) {
        if !sys::drop_bounding(capability)? {
            break;
        }
    }
    let set = |set, capabilities: &CapsHashSet| caps::set(None, set, capabilities).map_err(io::Error::other);
    let held = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    let kept: CapsHashSet = kept.intersection(&held).copied().collect();
    set(CapSet::Ambient, &CapsHashSet::new())?;
    set(CapSet::Inheritable, &CapsHashSet::new())?;
    set(CapSet::Effective, &kept)?;
    set(CapSet::Permitted, &kept)?;
    Ok(prctl::set_no_new_privs()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capabilities_are_dockers() {
        let mask = CAPABILITIES.iter().fold(0, |mask, capability| mask | capability.bitmask());
        assert_eq!(mask, 0xa804_25fb);
    }
}
