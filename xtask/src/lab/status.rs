//! `lab status`.

use super::layout::Lab;
use super::{daemon, dns};
use anyhow::Result;

pub(super) fn print(lab: &Lab) -> Result<()> {
    let hosts = lab.hosts()?;
    if hosts.is_empty() {
        println!("the lab `{}` is not up", lab.name());
        return Ok(());
    }
    println!("{:<8}{:<16}{:<7}SKEPD", "HOST", "ADDRESS", "POWER");
    for host in hosts {
        let power = if host.is_on()? { "on" } else { "off" };
        let skepd = match (host.is_node(), daemon::pid(&host)?) {
            (false, _) => "none: the outside machine".to_owned(),
            (true, None) => "does not run".to_owned(),
            (true, Some(pid)) if daemon::answers(&host) => {
                format!("pid {pid}, unix://{}", host.socket().display())
            }
            (true, Some(pid)) => format!("pid {pid}, does not answer; log: {}", host.log().display()),
        };
        println!("{:<8}{:<16}{power:<7}{skepd}", host.name(), host.address());
    }
    dns::print_status(lab);
    Ok(())
}
