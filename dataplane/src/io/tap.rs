//! TAPs: a container's overlay interface, opened inside its network namespace.

use super::fast::FastPaths;
use crate::VnetHdr;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use tun::AbstractDevice;

/// How to open a [`Tap`].
#[derive(Clone, Debug)]
pub struct TapOptions {
    /// The interface's name, at most 15 bytes.
    pub name: String,
    /// Let the kernel hand over super-frames and frames without checksum (TSO, USO, checksum offload).
    pub offloads: bool,
}

/// A TAP interface. It exists as long as this value: it is not persistent.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    takes_datagram_runs: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TapError {
    #[error("an interface name has 1 to 15 bytes, `{0}` does not")]
    Name(String),
    #[error(
        "/dev/net/tun does not exist, so no TAP can be made: load the kernel module (`modprobe tun`) or give this machine's container the device"
    )]
    NoDevice,
    #[error(
        "not permitted to make the TAP `{0}`: that takes CAP_NET_ADMIN in the network namespace and read-write access to /dev/net/tun (run as root)"
    )]
    Permission(String),
    #[error("the network namespace already has an interface `{0}`: remove it or choose another name")]
    Taken(String),
    #[error("cannot open the TAP `{name}`")]
    Open { name: String, source: io::Error },
    #[error("cannot set up the TAP `{name}`: {step}")]
    Setup { name: String, step: &'static str, source: io::Error },
}

impl Tap {
    /// Makes a TAP in the calling thread's network namespace. The result may be used from any thread.
    ///
    /// Link address, MTU, queue length, addresses and "up" are the caller's to set.
    pub fn open(options: &TapOptions) -> Result<Self, TapError> {
        let name = &options.name;
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(TapError::Name(name.clone()));
        }
        let device = create(name)?;
        let name = device.tun_name().unwrap_or_else(|_| name.clone());
        let setup = |step| {
            let name = name.clone();
            move |source| TapError::Setup { name, step, source }
        };
        // SAFETY: `into_raw_fd` gives up ownership of a descriptor that is open and nobody else closes.
        let fd = unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) };
        // The opener leaves both flags unset. A child process that inherited the descriptor would keep
        // the interface alive.
        let flags = fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
            .and_then(|_| fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)));
        flags.map_err(|errno| setup("descriptor flags")(errno.into()))?;
        set_header_format(fd.as_fd()).map_err(setup("virtio header format (TUNSETVNETHDRSZ)"))?;
        let uso = set_offloads(fd.as_fd(), options.offloads && FastPaths::chosen().offloads)
            .map_err(setup("offloads (TUNSETOFFLOAD)"))?;
        Ok(Self { file: File::from(fd), name, takes_datagram_runs: uso })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the kernel takes many datagrams as one frame (`GSO_UDP_L4`).
    pub(super) fn takes_datagram_runs(&self) -> bool {
        self.takes_datagram_runs
    }

    /// Reads one frame into `buf` and returns its header and length, or `None` if none waits.
    pub(super) fn read_frame(&self, buf: &mut [u8]) -> io::Result<Option<(VnetHdr, usize)>> {
        let mut header = [0; VnetHdr::LEN];
        match (&self.file).read_vectored(&mut [IoSliceMut::new(&mut header), IoSliceMut::new(buf)]) {
            Ok(read) => Ok(Some((VnetHdr::parse(&header), read.saturating_sub(VnetHdr::LEN)))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write_frame(&self, vnet: VnetHdr, frame: &[u8]) -> io::Result<()> {
        let header = vnet.to_bytes();
        // A TAP takes a frame whole or not at all.
        (&self.file).write_vectored(&[IoSlice::new(&header), IoSlice::new(frame)]).map(|_| ())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn create(name: &str) -> Result<tun::Device, TapError> {
    let mut config = tun::Configuration::default();
    config.tun_name(name).layer(tun::Layer::L2);
    config.platform_config(|linux| {
        // "Root privileges" is the opener's switch for setting addresses itself.
        linux.vnet_hdr(true).ensure_root_privileges(false);
    });
    tun::create(&config).map_err(|error| explain(name, error))
}

fn explain(name: &str, error: tun::Error) -> TapError {
    let name = name.to_owned();
    let source = match error {
        tun::Error::Io(source) => source,
        other => io::Error::other(other),
    };
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoDevice,
        Some(libc::EPERM | libc::EACCES) => TapError::Permission(name),
        Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) if is_taken(&name) => TapError::Taken(name),
        _ => TapError::Open { name, source },
    }
}

/// TUNSETIFF answers EINVAL for an interface of another kind and EBUSY for a TAP that is open elsewhere.
fn is_taken(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

// linux/if_tun.h: the two header requests and TUNSETOFFLOAD, whose argument is the value itself.
nix::ioctl_write_ptr!(tun_set_vnet_hdr_sz, b'T', 216, libc::c_int);
nix::ioctl_write_ptr!(tun_set_vnet_le, b'T', 220, libc::c_int);
nix::ioctl_write_int_bad!(tun_set_offload, nix::request_code_write!(b'T', 208, size_of::<libc::c_uint>()));

/// Ten bytes, little-endian: what [`VnetHdr`] reads and writes.
fn set_header_format(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `fd` is an open TAP and each pointer is to a live int, which is what both requests read.
    unsafe {
        tun_set_vnet_hdr_sz(fd.as_raw_fd(), &(VnetHdr::LEN as libc::c_int))?;
        tun_set_vnet_le(fd.as_raw_fd(), &1)?;
    }
    Ok(())
}

/// Set explicitly, also to nothing. USO came with Linux 6.2 and is taken for both IP versions or for none
/// (`set_offload` in drivers/net/tun.c); an older kernel answers EINVAL and does without. Whether it has it.
fn set_offloads(fd: BorrowedFd<'_>, offloads: bool) -> io::Result<bool> {
    const BASE: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO_ECN;
    const WITH_USO: u32 = BASE | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    // SAFETY: `fd` is an open TAP; the argument is a bit mask, no pointer.
    let set = |mask: u32| unsafe { tun_set_offload(fd.as_raw_fd(), mask.cast_signed()) };
    let has_uso = set(WITH_USO).is_ok();
    let accepted = match offloads {
        true if has_uso => return Ok(true),
        true => set(BASE),
        false => set(0),
    };
    accepted.map(|_| has_uso).map_err(io::Error::from)
}
