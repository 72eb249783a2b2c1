//! A task's view of the file system: the host's, read-only and without devices, with what must be the task's own
//! mounted over it and what it must not see covered.
//!
//! No mount it can write to takes device nodes (CAP_MKNOD is among Docker's capabilities, and no device cgroup
//! stands behind it), and /dev, which has some, is read-only.

use super::init::step;
use super::protocol::{Failure, Order};
use super::spec::WORKING_DIRECTORY;
use super::sys;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use std::ffi::{CString, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// Memory a task can fill by writing to one of /tmp, /run and its working directory.
const WRITABLE_SIZE: &str = "size=512m,nr_inodes=128k";
/// Docker's size.
const SHM_SIZE: &str = "size=64m";
const DEV_SIZE: &str = "size=64k";
/// Links followed from a file of /etc before it is taken for a loop; the kernel's own number.
const MAX_LINKS: usize = 40;

/// The kernel's own file systems: those of the host say about and do to the host what no task may, wherever they
/// are mounted. What a task needs of them it gets fresh.
const KERNEL_FILE_SYSTEMS: [&str; 20] = [
    "autofs",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// Covered in /proc and /sys, as runc and Docker do by default.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Character devices: name, major, minor (Linux's devices.txt).
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Builds the view in this process's mount namespace, which must be its own.
pub(super) fn build(order: &Order) -> Result<(), Failure> {
    let nowhere = None::<&str>;
    let private = mount(nowhere, "/", nowhere, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nowhere);
    step("keep mounts from spreading", private)?;
    let _made_with_the_modes_given = umask(Mode::empty());
    // Taken while the task's directory can be reached: it may lie below /tmp.
    let etc = etc_files(&order.directory)?;
    detach_kernel_file_systems()?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV;
    step("make the file system read-only (needs Linux 5.12)", sys::restrict(c"/", true, attributes))?;
    mount_own()?;
    make_dev()?;
    READ_ONLY.iter().try_for_each(|path| make_read_only(Path::new(path)))?;
    MASKED.iter().try_for_each(|path| cover(Path::new(path)))?;
    etc.iter().try_for_each(|(path, file)| put_over(path, file))?;
    order.hidden.iter().try_for_each(|path| cover(path))?;
    step("make /dev read-only", sys::restrict(c"/dev", false, libc::MOUNT_ATTR_RDONLY))
}

fn mount_own() -> Result<(), Failure> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let writable = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_new("proc", "/proc", quiet, "")?;
    mount_new("sysfs", "/sys", quiet | MsFlags::MS_RDONLY, "")?;
    mount_new("tmpfs", "/tmp", writable, &format!("mode=1777,{WRITABLE_SIZE}"))?;
    mount_new("tmpfs", "/run", writable, &format!("mode=755,{WRITABLE_SIZE}"))?;
    make_directory("/run/lock", 0o1777)?;
    make_directory(WORKING_DIRECTORY, 0o755)?;
    mount_new("tmpfs", WORKING_DIRECTORY, writable, &format!("mode=755,{WRITABLE_SIZE}"))
}

fn make_dev() -> Result<(), Failure> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_new("tmpfs", "/dev", quiet, &format!("mode=755,{DEV_SIZE}"))?;
    for (name, major, minor) in DEVICES {
        let path = Path::new("/dev").join(name);
        let mode = Mode::from_bits_truncate(0o666);
        let made = mknod(&path, SFlag::S_IFCHR, mode, makedev(major, minor));
        step(format!("make {}", path.display()), made)?;
    }
    for (target, name) in DEVICE_LINKS {
        step(format!("make /dev/{name}"), symlink(target, Path::new("/dev").join(name)))?;
    }
    ["/dev/pts", "/dev/shm", "/dev/mqueue"].into_iter().try_for_each(|path| make_directory(path, 0o755))?;
    mount_new("devpts", "/dev/pts", quiet, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    mount_new("tmpfs", "/dev/shm", quiet | MsFlags::MS_NODEV, &format!("mode=1777,{SHM_SIZE}"))?;
    mount_new("mqueue", "/dev/mqueue", quiet | MsFlags::MS_NODEV, "")
}

fn mount_new(kind: &str, target: &str, flags: MsFlags, data: &str) -> Result<(), Failure> {
    step(format!("mount {target}"), mount(Some(kind), target, Some(kind), flags, Some(data)))
}

fn make_directory(path: &str, mode: u32) -> Result<(), Failure> {
    step(format!("make {path}"), DirBuilder::new().mode(mode).create(path))
}

/// Takes the host's /proc, /sys, /dev and the like out of this namespace, the latest mounted first.
fn detach_kernel_file_systems() -> Result<(), Failure> {
    let mounts = step("read the mounts", fs::read("/proc/self/mountinfo"))?;
    let points: Vec<PathBuf> = mounts.split(|&byte| byte == b'\n').filter_map(kernel_mount_point).collect();
    for point in points.iter().rev() {
        match umount2(point, MntFlags::MNT_DETACH) {
            // Gone with the one it was mounted on.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => step(format!("unmount {}", point.display()), Err(error))?,
        }
    }
    Ok(())
}

/// Field 5 of a line of mountinfo, if the first field after the separator is a kernel file system
/// (proc_pid_mountinfo(5)).
fn kernel_mount_point(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|&byte| byte == b' ');
    let point = fields.nth(4)?;
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    KERNEL_FILE_SYSTEMS.iter().any(|name| name.as_bytes() == kind).then(|| unescape(point))
}

/// Space, tab, newline and backslash stand in mountinfo as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = field;
    while let [byte, tail @ ..] = rest {
        let code = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) if *byte == b'\\' => {
                path.push(code);
                rest = &tail[3..];
            }
            _ => {
                path.push(*byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A detached, read-only mount of `path` alone.
fn read_only_copy(path: &Path) -> io::Result<OwnedFd> {
    let copy = sys::open_tree(&c_path(path)?)?;
    sys::restrict_detached(
        &copy,
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
    )?;
    Ok(copy)
}

fn make_read_only(path: &Path) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    let covered = read_only_copy(path).and_then(|copy| sys::move_mount(&copy, &c_path(path)?));
    step(format!("make {} read-only", path.display()), covered)
}

/// Puts an empty directory over a directory and /dev/null over anything else; a path that isn't there stays so.
fn cover(path: &Path) -> Result<(), Failure> {
    let doing = || format!("cover {}", path.display());
    match fs::metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(())
        }
        Err(error) => step(doing(), Err(error)),
        Ok(metadata) if metadata.is_dir() => {
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            step(doing(), mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("size=0,mode=755")))
        }
        Ok(_) => {
            let covered =
                sys::open_tree(c"/dev/null").and_then(|null| sys::move_mount(&null, &c_path(path)?));
            step(doing(), covered)
        }
    }
}

/// The task's own files, and where they belong. A host without /etc/hosts or /etc/hostname has nothing to put one
/// over, and its programs do without; with no resolv.conf no name could be looked up.
fn etc_files(directory: &Path) -> Result<Vec<(PathBuf, OwnedFd)>, Failure> {
    let mut files = Vec::new();
    for (name, needed) in [("resolv.conf", true), ("hosts", false), ("hostname", false)] {
        let path = Path::new("/etc").join(name);
        if needed || path.symlink_metadata().is_ok() {
            let file = step(format!("take the task's {name}"), read_only_copy(&directory.join(name)))?;
            files.push((path, file));
        }
    }
    Ok(files)
}

fn put_over(path: &Path, file: &OwnedFd) -> Result<(), Failure> {
    let put = mount_point(path).and_then(|point| sys::move_mount(file, &c_path(&point)?));
    step(format!("mount {} (make an empty file there if the host has none)", path.display()), put)
}

/// Where the links of `path` lead. On many hosts /etc/resolv.conf leads into /run, which is the task's own: the
/// file is made there. Elsewhere nothing can be made, for the host's file system is read-only by then.
fn mount_point(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
                File::create(&path)?;
                return Ok(path);
            }
            Err(_no_link) => return Ok(path),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_file_systems_are_told_from_others_by_type() {
        let line = b"31 23 0:28 / /sys/fs/my\\040cgroup rw shared:4 master:1 - cgroup2 none rw";
        assert_eq!(kernel_mount_point(line), Some(PathBuf::from("/sys/fs/my cgroup")));
        assert_eq!(kernel_mount_point(b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw"), None);
        assert_eq!(kernel_mount_point(b"27 1 0:5 / /proc rw,relatime - tmpfs proc rw"), None);
        assert_eq!(kernel_mount_point(b""), None);
    }

    #[test]
    fn escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape(br"/a\040b\134c\011"), Path::new("/a b\\c\t"));
        assert_eq!(unescape(br"/a\9"), Path::new(r"/a\9"));
    }

    #[test]
    fn links_are_followed_to_a_file_that_is_made_if_missing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        symlink("run/systemd/resolv.conf", root.join("relative")).unwrap();
        symlink(root.join("relative"), root.join("absolute")).unwrap();
        let expected = root.join("run/systemd/resolv.conf");
        assert_eq!(mount_point(&root.join("absolute")).unwrap(), expected);
        assert!(expected.is_file());
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(mount_point(&root.join("loop")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }
}
