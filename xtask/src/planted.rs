//! `cargo xtask planted`: bugs planted one by one in a copy of the packet engine. The simulation has to find each, and
//! nothing in a copy without any. A test that no bug turns red proves nothing.

use crate::program::{cargo_command, root};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where the bugs are, one patch each; what one plants is on its first line.
const PATCHES: &str = "dataplane/tests/planted";

/// What the copy consists of, beside the workspace's manifest.
const COPIED: &[&str] = &[
    "Cargo.lock",
    "dataplane/Cargo.toml",
    "dataplane/src",
    "dataplane/tests",
    "dataplane/examples",
    "dataplane/benches",
];

/// Seeds that the simulation gets to find a bug in; the ordinary run has several times as many.
const SEEDS: &str = "60";

pub(crate) fn run() -> Result<()> {
    let copy = Copy::new(&root().join("target/planted"));
    let bugs = bugs(&root().join(PATCHES))?;
    copy.renew()?;
    let control = copy.simulate()?;
    ensure!(control.status.success(), "without a bug, the copy fails too:\n{}", text(&control));
    println!("no bug: {SEEDS} seeds pass");
    for bug in &bugs {
        copy.renew()?;
        copy.plant(bug)?;
        let output = copy.simulate()?;
        let Some(seed) = failed_seed(&text(&output)).filter(|_| !output.status.success()) else {
            bail!(
                "{}: the simulation did not find it in {SEEDS} seeds. {}\n{}",
                bug.name(),
                bug.plants,
                text(&output)
            );
        };
        println!("{}: found with seed {seed}", bug.name());
    }
    Ok(())
}

struct Bug {
    patch: PathBuf,
    plants: String,
}

impl Bug {
    fn name(&self) -> String {
        self.patch.file_stem().unwrap_or_default().to_string_lossy().replace('_', " ")
    }
}

fn bugs(directory: &Path) -> Result<Vec<Bug>> {
    let mut bugs = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let patch = entry?.path();
        let text = fs::read_to_string(&patch).with_context(|| format!("cannot read {}", patch.display()))?;
        let plants = text.lines().next().filter(|line| line.starts_with("Plants: "));
        let plants = plants
            .with_context(|| format!("{}: the first line has to say what it `Plants: `", patch.display()))?;
        bugs.push(Bug { plants: plants.to_owned(), patch });
    }
    ensure!(!bugs.is_empty(), "{}: no bugs to plant", directory.display());
    bugs.sort_by(|a, b| a.patch.cmp(&b.patch));
    Ok(bugs)
}

/// A workspace of its own that holds the packet engine alone. It stays, so that the next time only what changed is built.
struct Copy {
    tree: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn new(directory: &Path) -> Self {
        Self { tree: directory.join("tree"), target: directory.join("target") }
    }

    /// Makes it equal to the repository's.
    fn renew(&self) -> Result<()> {
        let manifest = fs::read_to_string(root().join("Cargo.toml")).context("cannot read Cargo.toml")?;
        write_if_changed(&self.tree.join("Cargo.toml"), with_one_member(&manifest)?.as_bytes())?;
        COPIED.iter().try_for_each(|path| mirror(&root().join(path), &self.tree.join(path)))
    }

    fn plant(&self, bug: &Bug) -> Result<()> {
        let mut git = Command::new("git");
        // The copy is inside a repository's ignored directory: to git it shall be a directory like any other.
        git.args(["apply", "-C1", "--"]).arg(&bug.patch).current_dir(&self.tree);
        let ceiling = self.tree.parent().unwrap_or(&self.tree);
        let output = git.env("GIT_CEILING_DIRECTORIES", ceiling).output().context("cannot run git")?;
        ensure!(
            output.status.success(),
            "{} no longer applies, as the code it changes has changed: plant the same bug in that and write the patch \
             anew (`git diff -U2`). {}\n{}",
            bug.patch.display(),
            bug.plants,
            text(&output)
        );
        Ok(())
    }

    fn simulate(&self) -> Result<Output> {
        let test = ["test", "--no-default-features", "--test", "simulation"];
        let run = |more: &[&str]| {
            let mut cargo = cargo_command(&test);
            cargo.args(more).current_dir(&self.tree).env("SKEP_SEEDS", SEEDS).env_remove("SKEP_SEED");
            cargo
                .env("CARGO_TARGET_DIR", &self.target)
                .env("RUST_BACKTRACE", "0")
                .output()
                .context("cannot run cargo")
        };
        let built = run(&["--no-run"])?;
        ensure!(built.status.success(), "the copy does not build:\n{}", text(&built));
        run(&[])
    }
}

/// The workspace's manifest for a workspace of the packet engine alone.
fn with_one_member(manifest: &str) -> Result<String> {
    let start = manifest.find("members = [").context("Cargo.toml: no list of members")?;
    let end = manifest[start..].find(']').context("Cargo.toml: an open list of members")?;
    Ok(format!("{}members = [\"dataplane\"{}", &manifest[..start], &manifest[start + end..]))
}

/// Makes `to` what `from` is. What is equal keeps its time, so that cargo does not build it again.
fn mirror(from: &Path, to: &Path) -> Result<()> {
    if from.is_file() {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        return write_if_changed(to, &bytes);
    }
    let names = |directory: &Path| -> Result<Vec<_>> {
        let entries =
            fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
        entries.map(|entry| Ok(entry?.file_name())).collect()
    };
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let wanted = names(from)?;
    for name in names(to)?.into_iter().filter(|name| !wanted.contains(name)) {
        let path = to.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    wanted.iter().try_for_each(|name| mirror(&from.join(name), &to.join(name)))
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let parent = path.parent().context("a file has a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// The seed a simulation failed with, in its own words.
fn failed_seed(output: &str) -> Option<u64> {
    let (_, after) = output.split_once("\nseed ")?;
    after.split_once(" failed")?.0.parse().ok()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
