//! Where a tunnel is: its interface, addresses, port and files on both hosts.

use crate::bench::ask::{self, Pair};
use crate::bench::overlay::site::Contestant;
use crate::interrupt::Interrupt;
use crate::lab::{Host, Lab};
use crate::program::run_in_reach;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take to do what it was started for.
const READY: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

pub(super) struct Place<'a> {
    lab: &'a Lab,
    /// Each tunnel's own.
    number: u16,
    /// Goes with the lab, and keys with it.
    directory: PathBuf,
    interrupt: &'a Interrupt,
}

impl<'a> Place<'a> {
    pub(super) fn new(lab: &'a Lab, number: u16, interrupt: &'a Interrupt) -> Result<Self> {
        let directory = lab.directory().join(format!("peer{number}"));
        fs::create_dir(&directory)?;
        Ok(Self { lab, number, directory, interrupt })
    }

    pub(super) fn host(&self, number: usize) -> Host {
        self.lab.node(number)
    }

    pub(super) fn interface(&self) -> String {
        format!("peer{}", self.number)
    }

    /// Of a host in the tunnel.
    pub(super) fn address(&self, number: usize) -> String {
        format!("10.79.{}.{number}", self.number)
    }

    pub(super) fn port(&self) -> u16 {
        7000 + self.number
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Starts a program that runs as long as its host does; its pid.
    pub(super) fn start(&self, number: usize, words: &[&str]) -> Result<u32> {
        let (program, arguments) = words.split_first().context("no program")?;
        let log = File::create(self.log(number))?;
        let mut entered = self
            .host(number)
            .command(program)?
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot run nsenter (Debian: util-linux)")?;
        // nsenter(1) forks to be in the host's pid namespace, and waits for its child, which becomes the program.
        let children = format!("/proc/{0}/task/{0}/children", entered.id());
        loop {
            self.interrupt.check()?;
            if let Some(status) = entered.try_wait()? {
                bail!("`{}` ended ({status}):\n{}", words.join(" "), self.said(number));
            }
            if let Ok(pid) = fs::read_to_string(&children)?.trim().parse() {
                return Ok(pid);
            }
            thread::sleep(POLL);
        }
    }

    /// Runs a program on a host.
    pub(super) fn run(&self, number: usize, words: &[&str]) -> Result<String> {
        let (program, arguments) = words.split_first().context("no program")?;
        let host = self.host(number);
        run_in_reach(
            host.command(program)?.args(arguments),
            &format!("{}: `{}`", host.name(), words.join(" ")),
        )
    }

    /// Runs a program on a host until it succeeds.
    pub(super) fn until(&self, number: usize, words: &[&str]) -> Result<()> {
        let deadline = Instant::now() + READY;
        while let Err(error) = self.run(number, words) {
            self.interrupt.check()?;
            ensure!(Instant::now() < deadline, "{error:#}\n{}", self.said(number));
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Moves the interface into a container, once it exists, and sets it up there.
    pub(super) fn set_up(&self, number: usize, mtu: u16) -> Result<()> {
        let interface = self.interface();
        self.until(number, &["ip", "link", "show", &interface])?;
        let host = self.host(number);
        for line in [
            format!("ip netns add {interface}"),
            format!("ip link set {interface} netns {interface}"),
            format!("ip -n {interface} addr add {}/24 dev {interface}", self.address(number)),
            format!("ip -n {interface} link set {interface} mtu {mtu} up"),
        ] {
            host.run(&line)?;
        }
        Ok(())
    }

    /// Once the tunnel carries packets as large as its MTU.
    pub(super) fn contestant(&self, name: &str, mtu: u16, agents: Vec<u32>) -> Result<Contestant> {
        let (netns, server) = (self.interface(), self.address(2));
        // Without the headers of IP and ICMP.
        let size = (mtu - 28).to_string();
        let ping = ["ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", &size, &server];
        self.until(1, &[["ip", "netns", "exec", &netns].as_slice(), &ping].concat()).with_context(|| {
            format!("{name} does not connect its ends; the other one says:\n{}", self.said(2))
        })?;
        ask::start_servers(&self.host(2), &netns, &server, self.interrupt)?;
        Ok(Contestant { name: name.to_owned(), pair: Pair { host: self.host(1), netns, server, agents } })
    }

    fn log(&self, number: usize) -> PathBuf {
        self.file(&format!("{number}.log"))
    }

    fn said(&self, number: usize) -> String {
        fs::read_to_string(self.log(number)).unwrap_or_default()
    }
}
