//! What the kernel would not take. The engine's own reasons are [`DropReason`](crate::DropReason).

use std::fmt;
use std::io;

/// Why an instruction of the engine, or something read, came to nothing. Displays as its metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IoDrop {
    /// A frame for a port whose TAP is not attached.
    NoTap,
    /// The TAP's queue or the kernel's memory was full.
    TapFull,
    /// The TAP's link is down, or its namespace is gone.
    TapDown,
    /// The kernel did not accept the frame or its virtio header.
    TapRejected,
    /// The socket's send buffer or the interface's queue was full.
    UnderlayFull,
    /// Larger than the path to the peer carries; the outer packet is never fragmented.
    UnderlayTooBig,
    /// No route to the peer.
    UnderlayUnreachable,
    /// This host's packet filter refused it.
    UnderlayFiltered,
    /// Any other error of a send.
    UnderlayFailed,
}

impl IoDrop {
    /// Every reason, in counter order.
    pub const ALL: [Self; 9] = [
        Self::NoTap,
        Self::TapFull,
        Self::TapDown,
        Self::TapRejected,
        Self::UnderlayFull,
        Self::UnderlayTooBig,
        Self::UnderlayUnreachable,
        Self::UnderlayFiltered,
        Self::UnderlayFailed,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::NoTap => "no_tap",
            Self::TapFull => "tap_full",
            Self::TapDown => "tap_down",
            Self::TapRejected => "tap_rejected",
            Self::UnderlayFull => "underlay_full",
            Self::UnderlayTooBig => "underlay_too_big",
            Self::UnderlayUnreachable => "underlay_unreachable",
            Self::UnderlayFiltered => "underlay_filtered",
            Self::UnderlayFailed => "underlay_failed",
        }
    }

    /// Of an error of a write to a TAP (`tun_get_user` in drivers/net/tun.c).
    pub(super) fn of_tap_write(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Self::TapFull,
            Some(libc::EIO | libc::EBADFD | libc::ENETDOWN) => Self::TapDown,
            _ => Self::TapRejected,
        }
    }

    /// Of an error of a send on the underlay (udp(7), ip(7)).
    pub(super) fn of_send(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Self::UnderlayFull,
            Some(libc::EMSGSIZE) => Self::UnderlayTooBig,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN) => Self::UnderlayUnreachable,
            Some(libc::EPERM | libc::EACCES) => Self::UnderlayFiltered,
            _ => Self::UnderlayFailed,
        }
    }
}

impl fmt::Display for IoDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Plain counters: one owner, no atomics.
#[derive(Debug, Default)]
pub(super) struct DropCounters([u64; IoDrop::ALL.len()]);

impl DropCounters {
    pub(super) fn add(&mut self, reason: IoDrop) {
        self.0[reason as usize] += 1;
    }

    pub(super) fn copy_out(&self) -> Vec<(IoDrop, u64)> {
        IoDrop::ALL.iter().map(|reason| (*reason, self.0[*reason as usize])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_out_under_the_reason_they_were_added_to() {
        for reason in IoDrop::ALL {
            let mut counters = DropCounters::default();
            counters.add(reason);
            let counted: Vec<_> = counters.copy_out().into_iter().filter(|(_, n)| *n > 0).collect();
            assert_eq!(counted, [(reason, 1)]);
        }
    }

    #[test]
    fn a_send_that_does_not_fit_the_path_has_its_own_name() {
        let error = io::Error::from_raw_os_error(libc::EMSGSIZE);
        assert_eq!(IoDrop::of_send(&error), IoDrop::UnderlayTooBig);
    }
}
