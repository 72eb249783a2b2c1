//! Anonymous network namespaces: no name anyone else could use, and gone with the process however it ends.

use crate::process::run;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;

/// A network namespace. It ends when this value and every process and interface descriptor in it are gone.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

/// Ends the test with a sentence rather than with the first EPERM of many.
pub fn require_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces: run it as root, or under `unshare --user --map-root-user --net --mount`"
    );
}

impl Netns {
    /// A namespace of its own with the loopback interface up.
    pub fn new() -> Result<Self> {
        require_root();
        // Only a thread that ends right after may leave the namespace of the process.
        let made = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let file = made.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        let netns = Self { file };
        netns.run("ip link set lo up")?;
        Ok(netns)
    }

    /// One that somebody else has made, by its file.
    pub fn open(path: &Path) -> Result<Self> {
        require_root();
        let file = File::open(path).with_context(|| format!("no namespace {}", path.display()))?;
        Ok(Self { file })
    }

    /// The same namespace, for somebody else to hold.
    pub fn again(&self) -> Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }

    /// Names the namespace for as long as this value lives: for `ip … netns PATH`, `nsenter --net=PATH` and Skep.
    pub fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd()).into()
    }

    /// A program to be started in this namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a command line, words split at spaces, and returns what it printed. An exit status other than 0
    /// is an error that carries the output.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        run(self.command(program).args(words))
    }

    /// Calls `action` on a thread in this namespace: the sockets it opens stay here.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| -> Result<T> {
                setns(&self.file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
                Ok(action())
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// How many packets an interface took; /sys may show another namespace's interfaces.
    pub fn received(&self, interface: &str) -> Result<u64> {
        let text = self.run(&format!("ip -s link show {interface}"))?;
        let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with("RX:"));
        let numbers = lines.nth(1).context("the RX line")?;
        Ok(numbers.split_whitespace().nth(1).context("packets")?.parse()?)
    }

    /// Joins two namespaces by a veth pair, both ends up.
    pub fn veth(&self, name: &str, peer: &Self, peer_name: &str) -> Result<()> {
        let peer_path = peer.path();
        self.run(&format!(
            "ip link add {name} type veth peer name {peer_name} netns {}",
            peer_path.display()
        ))?;
        self.run(&format!("ip link set {name} up"))?;
        peer.run(&format!("ip link set {peer_name} up"))?;
        Ok(())
    }
}
