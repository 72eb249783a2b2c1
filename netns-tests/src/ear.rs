//! An ear on a lab's underlay: it hears every frame from the first to the last, and knows what must not be in them.

use crate::capture::{Wire, ipv4, udp};
use crate::lab::Lab;
use crate::marker::{Marker, Search};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long what is in the kernel's queue may wait to be searched on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The lab's nodes are .1, .2, …; the outside machine comes after them.
const UNDERLAY: [u8; 3] = [192, 168, 77];
const LAST_NODE: u8 = 199;

/// In how many frames a marker was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// From node to node.
    pub between_nodes: u64,
    /// From or to anything that is no node.
    pub elsewhere: u64,
}

#[derive(Default)]
struct Heard {
    search: Search,
    shown: Vec<Shown>,
    /// Datagrams from node to node on the data path's port.
    datagrams: u64,
    /// What the overlay's datagrams say in the clear: how many had which mark.
    marks: BTreeMap<u8, u64>,
    frames: u64,
    /// When the kernel took the last frame that was searched, since the epoch.
    until: Duration,
    failed: Option<String>,
}

pub struct Ear {
    heard: Arc<Mutex<Heard>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ear {
    pub fn on(lab: &Lab, data_path_port: u16) -> Result<Self> {
        let mut wire = Wire::of(&lab.underlay()?)?;
        let (heard, ends) = (Arc::<Mutex<Heard>>::default(), Arc::<AtomicBool>::default());
        let (hearing, ending) = (heard.clone(), ends.clone());
        let thread = thread::spawn(move || {
            while !ending.load(Ordering::Relaxed) {
                match wire.hear() {
                    Ok(Some(frame)) => lock(&hearing).take(frame.bytes, frame.at, data_path_port),
                    Ok(None) => {}
                    Err(error) => {
                        lock(&hearing).failed = Some(format!("{error:#}"));
                        return;
                    }
                }
            }
        });
        Ok(Self { heard, ends, thread: Some(thread) })
    }

    /// A marker that is listened for from now on, and its number.
    pub fn marker(&self) -> Result<(Marker, usize)> {
        let marker = Marker::random()?;
        let mut heard = lock(&self.heard);
        let number = heard.shown.len();
        heard.search.add(&marker, number);
        heard.shown.push(Shown::default());
        Ok((marker, number))
    }

    /// Where the marker was seen, in all that was said up to now.
    pub fn shown(&self, number: usize) -> Result<Shown> {
        self.settle()?;
        lock(&self.heard).shown.get(number).copied().context("a marker of this ear")
    }

    /// How many datagrams of the overlay it has heard.
    pub fn datagrams(&self) -> Result<u64> {
        self.settle()?;
        Ok(lock(&self.heard).datagrams)
    }

    /// All frames, and how many of the overlay's had which mark.
    pub fn sum(&self) -> (u64, BTreeMap<u8, u64>) {
        let heard = lock(&self.heard);
        (heard.frames, heard.marks.clone())
    }

    /// Waits until everything that is on the wire by now has been searched. Nodes are never silent for long.
    fn settle(&self) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let began = Instant::now();
        loop {
            let (until, failed) = {
                let heard = lock(&self.heard);
                (heard.until, heard.failed.clone())
            };
            if let Some(failed) = failed {
                bail!("the ear is deaf: {failed}");
            }
            if until > now {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "the ear does not come after");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has said what it had to say in `failed`.
            let _ = thread.join();
        }
    }
}

impl Heard {
    fn take(&mut self, frame: &[u8], at: Duration, data_path_port: u16) {
        self.frames += 1;
        let is_between_nodes = ipv4(frame).is_some_and(|(from, to)| is_node(from) && is_node(to));
        if is_between_nodes
            && let Some(datagram) = udp(frame).filter(|datagram| datagram.to_port == data_path_port)
        {
            self.datagrams += 1;
            // As `docs/wire.md` has it.
            if !datagram.is_whole || datagram.from_port != data_path_port {
                self.failed = Some(format!("a datagram without DF, or from port {}", datagram.from_port));
            }
            *self.marks.entry(datagram.payload.get(7).copied().unwrap_or(u8::MAX)).or_default() += 1;
        }
        if let Some(number) = self.search.find(frame) {
            let shown = &mut self.shown[number];
            *(if is_between_nodes { &mut shown.between_nodes } else { &mut shown.elsewhere }) += 1;
        }
        self.until = at;
    }
}

fn is_node(address: [u8; 4]) -> bool {
    address[..3] == UNDERLAY && (1..=LAST_NODE).contains(&address[3])
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
