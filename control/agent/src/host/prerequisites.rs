//! What a machine needs to be a node, checked before anything is touched.

use caps::{CapSet, Capability};
use std::fs::OpenOptions;
use std::io;
use std::process::{Command, Stdio};

/// One sentence for each missing thing, saying what to do.
pub(super) fn missing() -> Vec<String> {
    [privileges(), tun_device(), nft_program()].into_iter().flatten().collect()
}

fn privileges() -> Option<String> {
    const NEEDED: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN];
    let has = |cap| caps::has_cap(None, CapSet::Effective, cap).unwrap_or(false);
    let lacking: Vec<_> = NEEDED.into_iter().filter(|cap| !has(*cap)).map(|cap| cap.to_string()).collect();
    (!lacking.is_empty()).then(|| {
        format!("skepd lacks {}: run it as root, or grant it these capabilities", lacking.join(" and "))
    })
}

fn tun_device() -> Option<String> {
    let error = OpenOptions::new().read(true).write(true).open("/dev/net/tun").err()?;
    Some(match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "/dev/net/tun may not be opened: run skepd as root, and allow the device in its cgroup".to_owned()
        }
        _ => format!(
            "/dev/net/tun cannot be opened ({error}): load the tun module (`modprobe tun`) or give this machine's container the device"
        ),
    })
}

fn nft_program() -> Option<String> {
    let version = Command::new("nft").arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status();
    match version {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("`nft --version` failed ({status}): reinstall the package nftables")),
        Err(error) => Some(format!(
            "the program nft does not start ({error}): install it (`apt-get install nftables`) and have it in PATH"
        )),
    }
}
