//! Starting other programs.

use anyhow::{Context, Result, ensure};
use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    // The manifest directory is the one this very binary was built from.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A command from one line, words split at spaces.
pub(crate) fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// Like [`run_in_reach`], but out of Ctrl-C's reach, so that no step is left half done: for short commands.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    run_in_reach(command.process_group(0), &shown)
}

/// Runs a command to its end and returns its standard output; another exit status than 0 is an error with what
/// it printed, under the name `shown`. Ctrl-C ends it.
pub(crate) fn run_in_reach(command: &mut Command, shown: &str) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {shown}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown}: {}\n{stdout}{stderr}", output.status);
    Ok(stdout)
}

pub(crate) fn run_line(line: &str) -> Result<String> {
    run(&mut command(line))
}

/// Runs cargo in the repository with its output for all to see.
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
    let status = cargo_command(arguments).status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {}: {status}", arguments.join(" "));
    Ok(())
}

/// Cargo, to be run in the repository.
pub(crate) fn cargo_command(arguments: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    of_no_package(Command::new(program), root(), arguments)
}

/// Runs the cargo that `+TOOLCHAIN` chooses, in a directory of the repository.
pub(crate) fn cargo_in(directory: &Path, arguments: &[&str]) -> Result<()> {
    // The toolchain this program was started by would win over the one asked for.
    let mut command = of_no_package(Command::new("cargo"), directory, arguments);
    let status = command.env_remove("RUSTUP_TOOLCHAIN").status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {}: {status}", arguments.join(" "));
    Ok(())
}

fn of_no_package(mut command: Command, directory: &Path, arguments: &[&str]) -> Command {
    for variable in PACKAGE_VARIABLES.iter().flat_map(|prefix| variables(prefix)) {
        command.env_remove(variable);
    }
    command.args(arguments).current_dir(directory);
    command
}

/// What cargo tells the programs it runs about their package. Build scripts watch them (ring's does): passed on,
/// they would make every build started from another package's program a new one.
const PACKAGE_VARIABLES: &[&str] = &["CARGO_PKG_", "CARGO_MANIFEST_"];

fn variables(prefix: &str) -> impl Iterator<Item = std::ffi::OsString> {
    let names = env::vars_os().map(|(name, _)| name);
    names.filter(move |name| name.to_string_lossy().starts_with(prefix))
}

/// Where a program is, as a shell would find it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    // Not every user's PATH has the directories of the system's own programs.
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

pub(crate) fn is_root() -> Result<bool> {
    Ok(run_line("id -u")?.trim() == "0")
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}
