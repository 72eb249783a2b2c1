//! `cargo xtask fuzz`: each parser against inputs nobody thought of. Needs a nightly compiler and cargo-fuzz.

use crate::program::{cargo_in, root};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates with a directory `fuzz`.
const CRATES: &[&str] = &["dataplane", "dns", "control/manager"];
/// What a visitor waits for without being asked; a night is better.
const SECONDS: u32 = 300;
/// Two datagrams of the usual size, or a request: longer inputs are slower and find little more.
const LONGEST_INPUT: usize = 4096;

/// `cargo xtask fuzz [TARGET] [--seconds N]`
pub(crate) fn command(words: &[&str]) -> Result<()> {
    let (words, seconds) = match words {
        [words @ .., "--seconds", seconds] => {
            (words, seconds.parse().context("--seconds takes a whole number")?)
        }
        words => (words, SECONDS),
    };
    let wanted: Vec<Target> = targets()?.into_iter().filter(|target| is_meant(target, words)).collect();
    ensure!(!wanted.is_empty(), "there is no target `{}`: {}", words.join(" "), names()?);
    wanted.iter().try_for_each(|target| run(target, seconds))
}

struct Target {
    /// Where `cargo fuzz` is run.
    directory: PathBuf,
    name: String,
}

fn is_meant(target: &Target, words: &[&str]) -> bool {
    words.is_empty() || words == [target.name.as_str()]
}

fn names() -> Result<String> {
    let names: Vec<_> = targets()?.into_iter().map(|target| target.name).collect();
    Ok(names.join(", "))
}

fn targets() -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for directory in CRATES.iter().map(|name| root().join(name)) {
        targets.extend(
            names_in(&directory)?.into_iter().map(|name| Target { directory: directory.clone(), name }),
        );
    }
    Ok(targets)
}

fn names_in(directory: &Path) -> Result<Vec<String>> {
    let sources = directory.join("fuzz/fuzz_targets");
    let files = fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))?;
    let stem = |file: fs::DirEntry| Some(file.path().file_stem()?.to_str()?.to_owned());
    let mut names: Vec<String> = files.filter_map(|file| stem(file.ok()?)).collect();
    names.sort();
    Ok(names)
}

/// New finds go beside the build, so that the committed corpus grows only by what somebody chose. No sanitizer: none
/// of this is unsafe code, and without one there are ten times as many tries.
fn run(target: &Target, seconds: u32) -> Result<()> {
    let Target { directory, name } = target;
    let found = directory.join("fuzz/target/found").join(name);
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    println!("\n== {name}: {seconds} s");
    let (kept, found) = (directory.join("fuzz/corpus").join(name), found.display().to_string());
    let (time, len) = (format!("-max_total_time={seconds}"), format!("-max_len={LONGEST_INPUT}"));
    let kept = kept.display().to_string();
    let run = ["+nightly", "fuzz", "run", "-s", "none", name, &found, &kept];
    let options = ["--", &time, &len, "-timeout=10", "-print_final_stats=1", "-verbosity=0"];
    cargo_in(directory, &[&run[..], &options].concat()).with_context(|| {
        format!("the input that fails {name} is under {}", directory.join("fuzz/artifacts").display())
    })
}
