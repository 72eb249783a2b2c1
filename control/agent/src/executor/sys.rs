//! System calls without a safe wrapper in the libraries used.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: callers pass a descriptor that the kernel has just returned to them; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// A descriptor of the process, closed on exec. It is readable once the process has ended.
pub(super) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and returns a new descriptor.
    checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(owned)
}

pub(super) fn pidfd_signal(pidfd: &impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: a null siginfo is allowed and means what kill(2) would fill in.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    checked(result).map(drop)
}

/// `fd`, to be waited for until it is readable. To be called within a tokio runtime.
pub(super) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the `AsyncFd` owns the descriptor, which stays open and the same until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Sends SIGKILL; a process that is gone already is no error.
pub(super) fn kill(pidfd: &impl AsFd) -> io::Result<()> {
    match pidfd_signal(pidfd, libc::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

/// A detached copy of the mount at `path` with its root there, closed on exec.
pub(super) fn open_tree(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    checked(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) }).map(owned)
}

/// Puts a detached mount at `path`, which is followed if it is a symbolic link.
pub(super) fn move_mount(mount: &OwnedFd, path: &CStr) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_SYMLINKS;
    // SAFETY: both paths are NUL-terminated and outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
        )
    };
    checked(result).map(drop)
}

fn mount_setattr(dir: RawFd, path: &CStr, flags: libc::c_int, set: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: `path` is NUL-terminated, `attributes` is as long as said, both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    checked(result).map(drop)
}

/// Adds attributes (`MOUNT_ATTR_…`) to the mount at `path` and, if wanted, to all below it.
pub(super) fn restrict(path: &CStr, recursive: bool, attributes: u64) -> io::Result<()> {
    mount_setattr(libc::AT_FDCWD, path, if recursive { libc::AT_RECURSIVE } else { 0 }, attributes)
}

/// Adds attributes to a detached mount.
pub(super) fn restrict_detached(mount: &OwnedFd, attributes: u64) -> io::Result<()> {
    mount_setattr(mount.as_raw_fd(), c"", libc::AT_EMPTY_PATH, attributes)
}

/// Closes every descriptor from `first` on.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: callers own no descriptor from `first` on that they use afterwards.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Lets every descriptor from `first` on be closed by the next exec.
pub(super) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: sets a flag on descriptors, closes none.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// An inherited descriptor, named by number in the arguments of this process.
pub(super) fn inherited(number: &str) -> io::Result<OwnedFd> {
    let fd: RawFd = number.parse().map_err(io::Error::other)?;
    // SAFETY: fcntl takes integers; it fails on a descriptor that is not open.
    checked(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: open, as the line above has shown; each number is taken once, by the role it was passed for.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Every signal does what it does by default: ignored ones would stay ignored over exec. Past the C library, which
/// keeps two signals to itself and has posix_spawn ignore them.
pub(super) fn reset_signals() {
    /// Size of the kernel's signal set, in bytes.
    const SET_BYTES: usize = 8;
    // The kernel's struct sigaction (handler, flags, restorer, mask) all zero: SIG_DFL.
    let default = [0u64; 4];
    for signal in 1..=libc::SIGRTMAX() {
        let none = std::ptr::null::<u64>();
        // SAFETY: installs no handler; `default` is as large as the kernel's structure. SIGKILL and SIGSTOP, which
        // allow no change, fail harmlessly.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, SET_BYTES) };
    }
}

pub(super) fn ignore_signal(signal: i32) {
    // SAFETY: installs no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Takes a capability out of the bounding set; false when the kernel knows none of that number.
pub(super) fn drop_bounding(capability: u32) -> io::Result<bool> {
    // SAFETY: takes integers only.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    match checked(result.into()) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Leaves the daemon's session keyring for a new, empty one; keyrings are in no namespace.
pub(super) fn new_session_keyring() -> io::Result<()> {
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    checked(result).map(drop)
}
