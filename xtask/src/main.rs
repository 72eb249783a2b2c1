//! `cargo xtask`: what a developer or a visitor of this repository types.

mod bench;
mod demo;
mod fuzz;
mod interrupt;
mod lab;
#[cfg(test)]
mod others_bugs;
mod packages;
mod planted;
mod program;
mod test;

use anyhow::{Result, bail};
use std::process::ExitCode;
use test::Size;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  lab up|down|exec|status|kill|boot|daemon|dns   hosts in network namespaces (`cargo xtask lab` says more)
  demo [--encrypted false]   a hive of three hosts, from nothing to a published service, and away again
  test       everything that is checked; with --nightly, 10,000 seeds of the engine's simulation
  planted    bugs planted in a copy of the packet engine, each to be found by its simulation
  fuzz [TARGET] [--seconds N]   every parser (or one) against inputs nobody thought of
  bench [overlay|local|mesh|all] [--rounds N] [--peers]   side by side with the kernel, and with other userspace tunnels";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[&str]) -> Result<()> {
    match words {
        ["lab", rest @ ..] => lab::command(rest),
        ["demo", rest @ ..] => demo::run(rest),
        ["test"] => test::run(Size::Usual),
        ["test", "--nightly"] => test::run(Size::Nightly),
        ["planted"] => planted::run(),
        ["fuzz", rest @ ..] => fuzz::command(rest),
        ["bench", rest @ ..] => bench::command(rest),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        [unknown, ..] => bail!("there is no `{unknown}`\n{USAGE}"),
    }
}
