//! The lab: hosts in network namespaces on one machine, an underlay between them, and an outside machine.
//!
//! ```text
//!  NAME-n1 (192.168.77.1)   NAME-n2 (.2)  …   NAME-client (.200, .201, and 203.0.113.1 behind it)
//!        eth0 |                 eth0 |                eth0 |
//!  NAME-net:  n1 ---- underlay (bridge) n2 ------------ client
//! ```
//!
//! A host is a pid, mount, uts, ipc and network namespace. Its init holds them: what runs on the host ends with
//! it, so that `down` has no process to look for.

mod build;
mod daemon;
mod dns;
mod down;
mod host;
mod layout;
mod options;
mod status;
mod underlay;
mod up;

use crate::interrupt::Interrupt;
use crate::program::is_root;
use anyhow::{Context, Result, bail, ensure};
pub(crate) use down::down;
pub(crate) use host::{Host, processes};
pub(crate) use layout::Lab;
pub(crate) use options::UpOptions;
pub(crate) use up::{prepare, up};

const USAGE: &str = "\
usage: cargo xtask lab COMMAND [--name NAME]     (default name: skep)

  up [--nodes N]          hosts n1…nN (default 3) with skepd, joined to one cluster, and the machine `client`
     [--data-cipher NAME]    what the cluster seals frames with: chacha20-poly1305 (default) or aes-256-gcm
     [--data-path-port N]    the UDP port they are sent to and from (default 4789)
  down                    removes everything `up` made, also after an `up` that was killed
  exec HOST -- COMMAND    runs a command on a host: n1, n2, … or client; `skep` there talks to that host's skepd
  status                  what runs
  add                     one more host, joined to the cluster
  kill HOST               power off: everything on the host ends at once
  boot HOST               power on again, with the state it had on disk
  daemon HOST kill|start  SIGKILL for a host's skepd alone, and a new one
  dns 1|2 dead|alive      one of the outside machine's DNS servers stops answering, or answers again";

/// `cargo xtask lab …`
pub(crate) fn command(words: &[&str]) -> Result<()> {
    let (words, program) = split_at_dashes(words);
    let (name, words) = options::take_name(words)?;
    let lab = Lab::new(&name)?;
    if let [] | ["help" | "--help" | "-h"] = words.as_slice() {
        println!("{USAGE}");
        return Ok(());
    }
    if let ["dns-server", listen, log, dead_file] = words.as_slice() {
        return dns::serve(listen.parse()?, log.as_ref(), dead_file.as_ref());
    }
    ensure!(is_root()?, "the lab makes network namespaces: run it as root (`sudo -E cargo xtask lab …`)");
    match words.as_slice() {
        ["up", options @ ..] => {
            let options = UpOptions::parse(options)?;
            prepare()?;
            up(&lab, &options)?;
            status::print(&lab)?;
            if !options.encrypted {
                println!(
                    "a lab has no network but ingress yet: make plain ones with `skep network create --opt encrypted=false`"
                );
            }
            Ok(())
        }
        ["down"] => down(&lab),
        ["exec", host] => exec(&lab.host(host)?, program),
        ["status"] => status::print(&lab),
        ["add"] => up::join_another(&lab),
        ["kill", host] => lab.host(host)?.power_off(),
        ["boot", host] => up::boot(&lab, &lab.host(host)?, &Interrupt::watch()?),
        ["daemon", host, "kill"] => daemon::kill(&lab.host(host)?),
        ["daemon", host, "start"] => daemon::start(&lab.host(host)?, &Interrupt::watch()?),
        ["dns", server, state] => dns::set_state(&lab, server, state),
        _ => bail!("`lab {}` is none of these\n{USAGE}", words.join(" ")),
    }
}

/// Replaces this process by a program on the host.
fn exec(host: &Host, program: &[&str]) -> Result<()> {
    let (name, arguments) = program.split_first().context("say what to run: lab exec HOST -- COMMAND")?;
    let mut command = host.command(name)?;
    let error = std::os::unix::process::CommandExt::exec(command.args(arguments));
    Err(error).context("cannot run nsenter (Debian: util-linux)")
}

fn split_at_dashes<'a>(words: &'a [&'a str]) -> (&'a [&'a str], &'a [&'a str]) {
    match words.iter().position(|word| *word == "--") {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, &[]),
    }
}
