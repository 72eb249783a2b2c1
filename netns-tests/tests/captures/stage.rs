//! A lab with an ear on its underlay, and scenes that are played in it.

use anyhow::{Context, Result, ensure};
use netns_tests::Netns;
use netns_tests::ear::{Ear, Shown};
use netns_tests::lab::{Lab, eventually};
use netns_tests::marker::Marker;
use netns_tests::talk::Echo;
use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Where everybody listens, inside.
pub(crate) const PORT: u16 = 8000;
/// How long whatever happened may take to pass, on a busy machine.
pub(crate) const AGAIN: Duration = Duration::from_secs(60);

/// Where a scene's marker may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Nowhere,
    /// On its way between a node and somebody outside, never between nodes.
    Outside,
    /// It has to be found between nodes.
    Between,
}

pub(crate) struct Stage {
    pub(crate) lab: Lab,
    ear: Ear,
    /// The scenes played: title, the number of their marker, and where that may be.
    played: RefCell<Vec<(String, usize, Wanted)>>,
}

impl Stage {
    pub(crate) fn new(nodes: usize, options: &[&str], data_path_port: u16) -> Result<Self> {
        let lab = Lab::up_with(nodes, options)?;
        let ear = Ear::on(&lab, data_path_port)?;
        Ok(Self { lab, ear, played: RefCell::default() })
    }

    /// Whatever happens in it, the marker is nowhere.
    pub(crate) fn sealed(&self, title: &str, play: impl FnOnce(&Marker) -> Result<()>) -> Result<()> {
        self.scene(title, Wanted::Nowhere, play)
    }

    /// The marker is between nodes: the ear hears.
    pub(crate) fn plain(&self, title: &str, play: impl FnOnce(&Marker) -> Result<()>) -> Result<()> {
        self.scene(&format!("plain: {title}"), Wanted::Between, play)
    }

    /// The marker is between a node and the outside machine, and not between nodes.
    pub(crate) fn by_outsiders(&self, title: &str, play: impl FnOnce(&Marker) -> Result<()>) -> Result<()> {
        self.scene(title, Wanted::Outside, play)
    }

    fn scene(&self, title: &str, wanted: Wanted, play: impl FnOnce(&Marker) -> Result<()>) -> Result<()> {
        let (marker, number) = self.ear.marker()?;
        let before = self.ear.datagrams()?;
        play(&marker).with_context(|| title.to_owned())?;
        let shown = self.ear.shown(number)?;
        let datagrams = self.ear.datagrams()? - before;
        println!(
            "{title}: {datagrams} datagrams heard, {} of them with the marker, {} frames elsewhere",
            shown.between_nodes, shown.elsewhere
        );
        ensure!(datagrams > 0, "{title}: no datagram was heard");
        self.played.borrow_mut().push((title.to_owned(), number, wanted));
        check(title, wanted, shown)
    }

    /// All that was said was heard, also late; and the lab's own last check.
    pub(crate) fn finish(self) -> Result<()> {
        for (title, number, wanted) in self.played.borrow().iter() {
            check(title, *wanted, self.ear.shown(*number)?).context("at the end")?;
        }
        let (frames, marks) = self.ear.sum();
        println!("{} scenes, {frames} frames, datagrams by mark: {marks:?}", self.played.borrow().len());
        drop(self.ear);
        self.lab.finish()
    }

    pub(crate) fn create_network(&self, name: &str, options: &[&str]) -> Result<()> {
        let create = ["network", "create", "-d", "overlay", "--attachable"];
        self.lab.skep(&[&create, options, &[name]].concat()).map(|_| ())
    }

    /// A service whose tasks echo, on nodes by this constraint, and its VIP.
    pub(crate) fn echo_service(&self, name: &str, network: &str, options: &[&str]) -> Result<SocketAddrV4> {
        let (program, port) = (self.lab.program("prober"), PORT.to_string());
        let create = ["service", "create", "-d", "--name", name, "--network", network];
        self.lab.skep(&[&create[..], options, &["host", &program, "echo", &port]].concat())?;
        self.lab.until_running(name, 1)?;
        let service: serde_json::Value =
            serde_json::from_str(&self.lab.skep(&["service", "inspect", name])?)?;
        let vips = service[0]["Endpoint"]["VirtualIPs"].as_array().context("VIPs")?.clone();
        let network: serde_json::Value =
            serde_json::from_str(&self.lab.skep(&["network", "inspect", network])?)?;
        let vip = vips.iter().find(|vip| vip["NetworkID"] == network[0]["Id"]).context("a VIP there")?;
        let addr = vip["Addr"].as_str().and_then(|addr| addr.split('/').next()).context("an address")?;
        Ok(SocketAddrV4::new(addr.parse()?, PORT))
    }
}

fn check(title: &str, wanted: Wanted, shown: Shown) -> Result<()> {
    let Shown { between_nodes, elsewhere } = shown;
    match wanted {
        Wanted::Nowhere => ensure!(
            between_nodes == 0 && elsewhere == 0,
            "{title}: the marker is in {between_nodes} frames between nodes and in {elsewhere} elsewhere"
        ),
        Wanted::Outside => ensure!(
            between_nodes == 0 && elsewhere > 0,
            "{title}: the marker is in {between_nodes} frames between nodes and in {elsewhere} elsewhere"
        ),
        Wanted::Between => ensure!(between_nodes > 0, "{title}: the ear did not hear the marker"),
    }
    Ok(())
}

/// A namespace that is attached to one network, in which everything is echoed.
pub(crate) struct Container {
    pub(crate) netns: Netns,
    pub(crate) addr: SocketAddrV4,
    node: String,
    name: String,
    _echo: Echo,
}

impl Container {
    pub(crate) fn new(lab: &Lab, node: &str, network: &str, name: &str) -> Result<Self> {
        let netns = lab.add_netns(node, name)?;
        Self::attached(lab, netns, node, network, name, &[])
    }

    /// With this address.
    pub(crate) fn at(lab: &Lab, node: &str, network: &str, name: &str, ip: &str) -> Result<Self> {
        let netns = lab.add_netns(node, name)?;
        Self::on(lab, &netns, node, network, name, ip)
    }

    /// In a namespace that is there.
    pub(crate) fn on(
        lab: &Lab,
        netns: &Netns,
        node: &str,
        network: &str,
        name: &str,
        ip: &str,
    ) -> Result<Self> {
        Self::attached(lab, netns.again()?, node, network, name, &["--ip", ip])
    }

    fn attached(
        lab: &Lab,
        netns: Netns,
        node: &str,
        network: &str,
        name: &str,
        options: &[&str],
    ) -> Result<Self> {
        let addr = attach(lab, node, network, name, options)?;
        let echo = Echo::of(&netns, PORT)?;
        let (node, name) = (node.to_owned(), name.to_owned());
        Ok(Self { netns, addr: SocketAddrV4::new(addr, PORT), node, name, _echo: echo })
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn detach(&self, lab: &Lab, network: &str) -> Result<()> {
        let file = format!("/run/netns/{}", self.name);
        lab.exec(&self.node, &["skep", "detach", network, "--netns", &file]).map(|_| ())
    }

    /// On its network once more, at the same address, after its daemon started anew.
    pub(crate) fn attach_again(&self, lab: &Lab, network: &str) -> Result<()> {
        let ip = self.addr.ip().to_string();
        // Until the manager has heard that the old attachment is gone, its address and name are taken.
        eventually(AGAIN, &format!("{} is attached again", self.name), || {
            attach(lab, &self.node, network, &self.name, &["--ip", &ip]).map(|_| true)
        })
    }
}

fn attach(lab: &Lab, node: &str, network: &str, name: &str, options: &[&str]) -> Result<Ipv4Addr> {
    let file = format!("/run/netns/{name}");
    let attach = ["skep", "attach", network, "--netns", &file, "--name", name, "--format", "{{.Address}}"];
    let address = lab.exec(node, &[&attach[..], options].concat())?;
    let address = address.trim().split('/').next().unwrap_or_default();
    address.parse().with_context(|| format!("an address, not {address}"))
}
