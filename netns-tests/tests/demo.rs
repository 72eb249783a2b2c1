//! `cargo xtask demo`, as the README has it.

use anyhow::{Result, ensure};
use netns_tests::lab::xtask;
use std::process::Command;

#[test]
fn the_demo_tells_its_story_to_the_end_and_leaves_nothing() -> Result<()> {
    netns_tests::require_root();
    let output = Command::new(xtask()?).arg("demo").output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "Ready",
        "converged",
        "*:4568->4567/tcp",
        "visitor ",
        "you are 192.168.77.200",
        "PONG",
        "removed again",
    ] {
        ensure!(told.contains(part), "`{part}` is missing in:\n{told}");
    }
    let left = netns_tests::run(Command::new("ip").args(["netns", "list"]))?;
    ensure!(!left.contains("demo-"), "namespaces are left: {left}");
    Ok(())
}
