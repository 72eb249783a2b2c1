//! The daemon itself, in a network namespace of its own: what it keeps to itself, and what it tells.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

struct Daemon {
    process: Child,
    dir: TempDir,
}

impl Daemon {
    /// Returns when it is ready. Everything on the way executes the next, so that the child is the daemon.
    fn start(options: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "the daemon makes namespaces: run this test as root");
        let dir = TempDir::new().unwrap();
        let (skepd, at) = (env!("CARGO_BIN_EXE_skepd"), dir.path().display());
        let line = format!(
            "ip link set lo up; ulimit -c unlimited; cd {at}; exec {skepd} --socket {at}/s --state-dir {at}/state {options}"
        );
        let mut process = Command::new("unshare");
        process.args(["--net", "sh", "-c", &line]).stdout(Stdio::null());
        process.stderr(fs::File::create(dir.path().join("log")).unwrap());
        let daemon = Self { process: process.spawn().expect("util-linux's unshare"), dir };
        daemon.await_ready();
        daemon
    }

    fn await_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains("ready") {
            assert!(Instant::now() < deadline, "{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// What curl gets, asking from the daemon's own namespace.
    fn curl(&self, words: &[&str]) -> String {
        let namespace = format!("--net=/proc/{}/ns/net", self.process.id());
        let mut curl = Command::new("nsenter");
        curl.args([&namespace, "curl", "--silent", "--show-error", "--fail", "--max-time", "10"]).args(words);
        let output = curl.output().expect("util-linux's nsenter");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A core dump would hold every key, and so may a page on disk.
#[test]
fn keys_leave_neither_by_a_dump_nor_through_swap() {
    let mut daemon = Daemon::start("");
    const CAP_IPC_LOCK: u32 = 14;
    let capabilities = u64::from_str_radix(&daemon.status("CapEff"), 16).unwrap();
    match capabilities >> CAP_IPC_LOCK & 1 {
        1 => assert_ne!(daemon.status("VmLck"), "0 kB"),
        _ => assert!(daemon.log().contains("lacks CAP_IPC_LOCK"), "{}", daemon.log()),
    }
    let id = nix::unistd::Pid::from_raw(daemon.process.id().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGABRT).unwrap();
    let status = daemon.process.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
}

#[test]
fn metrics_are_told_on_their_address_and_on_the_api_socket() {
    let daemon = Daemon::start("--metrics-addr 127.0.0.1:9323");
    let open = daemon.curl(&["http://127.0.0.1:9323/metrics"]);
    assert!(open.lines().any(|line| line == "skep_member 0"), "{open}");
    let socket = daemon.socket();
    let asked = ["--unix-socket", socket.to_str().unwrap(), "http://skep/v1.44/skep/metrics"];
    assert_eq!(daemon.curl(&asked), open);
}

#[test]
fn a_wrong_address_for_metrics_is_refused_with_what_to_do() {
    let refused = |word: &str| {
        let mut skepd = Command::new(env!("CARGO_BIN_EXE_skepd"));
        let output = skepd.args(["--metrics-addr", word]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused("somewhere");
    assert!(said.contains("--metrics-addr") && said.contains("as in 127.0.0.1:9323"), "{said}");
}
