//! The only program the host runs: `nft`, given a whole transaction on standard input.

use super::RulesError;
use super::netns::Netns;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Loads `rules` in one transaction: all of them or none.
pub(super) async fn load(netns: &Netns, rules: String) -> Result<(), RulesError> {
    let output = netns.run(move || run(&["-f", "-"], &rules)).await.map_err(RulesError::Run)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(RulesError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Whether our table is there; another program may have flushed the rule set.
pub(super) async fn is_loaded(netns: &Netns) -> io::Result<bool> {
    let listed = netns.run(|| run(&["--terse", "list", "table", "inet", "skep"], "")).await?;
    Ok(listed.status.success())
}

fn run(args: &[&str], input: &str) -> io::Result<std::process::Output> {
    let mut nft = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = nft.stdin.take().expect("stdin is piped");
    // nft reads all of its input before it writes; if it has ended early, its status says why.
    match stdin.write_all(input.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        _ => drop(stdin),
    }
    nft.wait_with_output()
}
