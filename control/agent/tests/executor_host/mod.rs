//! A host for tests of the executor: a state directory of its own, and looks at what is left on the machine.
#![allow(dead_code, reason = "each test binary uses its part")]

use skep_agent::executor::{
    ExecutorConfig, Exit, Process, ProcessExecutor, ProcessIo, ProcessSpec, ReadOptions, StartError,
};
use skep_model::TaskId;
use skep_model::session::{LogLine, LogStream};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Far beyond what anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How often a look is taken at what tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(crate) struct Host {
    pub(crate) executor: ProcessExecutor,
    pub(crate) dir: TempDir,
    /// Begins every task id of this host, and so tells its processes from others'.
    tag: String,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::hiding(&[])
    }

    pub(crate) fn hiding(hidden: &[&Path]) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make namespaces and mounts: run them as root");
        // Not below /tmp, which every task has for itself: what must be hidden would be out of sight anyway.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let hidden = hidden.iter().map(|path| path.to_path_buf()).collect();
        let mut config = ExecutorConfig::new(dir.path().join("executor"), hidden);
        config.shim = PathBuf::from(env!("CARGO_BIN_EXE_skep-task"));
        Self { executor: ProcessExecutor::new(config).unwrap(), dir, tag: TaskId::random().0 }
    }

    /// The id of the task called `name`.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("{}{name}", self.tag)
    }

    /// The executor's directory.
    pub(crate) fn state(&self) -> String {
        self.dir.path().join("executor").display().to_string()
    }

    pub(crate) fn spec(&self, name: &str, args: &[&str]) -> ProcessSpec {
        ProcessSpec {
            id: self.id(name),
            netns: netns(),
            hostname: format!("host-{name}"),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: Vec::new(),
            resolv_conf: "nameserver 127.0.0.11\n".into(),
            hosts: format!("127.0.0.1 localhost\n10.0.0.2 {name}\n"),
            dir: String::new(),
            user: String::new(),
            io: ProcessIo::Log,
            terminal: None,
        }
    }

    pub(crate) async fn start(&self, name: &str, args: &[&str]) -> Result<Process, StartError> {
        self.executor.start(self.spec(name, args)).await
    }

    /// A shell script as task `t`.
    pub(crate) async fn shell(&self, script: &str) -> Process {
        self.start("t", &["sh", "-c", script]).await.unwrap()
    }

    /// What a script that must succeed prints to its standard output, as task `t`.
    pub(crate) async fn run(&self, script: &str) -> String {
        let exit = ended(&self.shell(script).await).await;
        let lines = self.log("t").await;
        // The next script's log would go on where this one's ends.
        self.executor.remove(&self.id("t")).unwrap();
        assert_eq!(exit.code, 0, "{lines:#?}");
        let out = lines.iter().filter(|line| line.stream == LogStream::Stdout);
        out.map(|line| format!("{}\n", line.text)).collect()
    }

    pub(crate) async fn log(&self, name: &str) -> Vec<LogLine> {
        let mut lines = self.executor.logs(&self.id(name), ReadOptions::default()).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.recv().await {
            all.push(line);
        }
        all
    }

    pub(crate) async fn wait_for_line(&self, name: &str, text: &str) {
        let options = ReadOptions { follow: true, ..ReadOptions::default() };
        let mut lines = self.executor.logs(&self.id(name), options).unwrap();
        let found = async {
            while let Some(line) = lines.recv().await {
                if line.text.contains(text) {
                    return;
                }
            }
            panic!("the log of {name} ended without {text:?}");
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap();
    }

    /// Another process as the daemon of one task, and the task's pid.
    pub(crate) fn daemon(&self, args: &[&str]) -> (Child, i32) {
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_skep-task"))
            .arg(self.dir.path().join("executor"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        (daemon, line.trim().strip_prefix("pid ").unwrap().parse().unwrap())
    }

    pub(crate) fn kept_directories(&self) -> usize {
        fs::read_dir(self.dir.path().join("executor")).unwrap().count()
    }

    /// Neither a shim of this host's tasks nor a zombie of this process.
    pub(crate) async fn assert_no_process_left(&self) {
        until("no process is left", || {
            let mut processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
                entry.unwrap().file_name().to_str().and_then(|name| name.parse::<i32>().ok())
            });
            !processes.any(|pid| self.is_mine(pid))
        })
        .await;
    }

    fn is_mine(&self, pid: i32) -> bool {
        let shim =
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&self.tag));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let child = status.contains(&format!("PPid:\t{}\n", std::process::id()));
        shim || child && status.contains("State:\tZ")
    }
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

pub(crate) fn is_alive(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

pub(crate) async fn wait_until_gone(pid: i32) {
    until("the process is gone", || !is_alive(pid)).await;
}

/// Until the process has become the program `name`.
pub(crate) async fn wait_for_command(pid: i32, name: &str) {
    until("the program runs", || {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
    })
    .await;
}

/// An anonymous network namespace with its loopback up.
pub(crate) fn netns() -> OwnedFd {
    let made = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        File::open("/proc/thread-self/ns/net").unwrap().into()
    });
    made.join().unwrap()
}

pub(crate) async fn ended(task: &Process) -> Exit {
    tokio::time::timeout(PATIENCE, task.wait()).await.expect("the task has not ended")
}
