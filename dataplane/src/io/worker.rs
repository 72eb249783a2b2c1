//! The packet thread: waits, reads, lets the engine decide, carries out its instructions.

use super::drops::{DropCounters, IoDrop};
use super::fast::FastPaths;
use super::handle::{AttachError, WorkerStats};
use super::mmsg::RecvBatch;
use super::send::SendBatch;
use super::staged::Staged;
use super::tap::Tap;
use crate::ids::PortId;
use crate::merge::{Acknowledgements, Merge};
use crate::{Engine, HEADROOM, Output, Prepared, Retired, VnetHdr};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

/// An IP packet's largest size, an Ethernet header and a VLAN tag.
const FRAME_BYTES: usize = (1 << 16) + 18;
/// Frames of one TAP per turn: enough to make the wake-up cheap, few enough that no port waits long.
const FRAMES_PER_TURN: usize = 64;
/// Frames of a batch of datagrams that are written before it is looked what their receivers answer.
const FRAMES_PER_SHARE: usize = 32;
/// Batches of datagrams per turn.
const BATCHES_PER_TURN: usize = 4;
/// How long a timer waits for the socket to be read empty. A flood never lets it: then the timer comes so late that the
/// engine takes its node for starved, and judges no peer by answers that may be waiting behind the flood.
const TIMER_PATIENCE: Duration = Duration::from_millis(150);
/// Ready descriptors looked at per turn; the kernel lists the others first the next time.
const EVENTS_PER_TURN: usize = 64;
/// Far above the containers a host runs, far below the kernel's limit of descriptors.
pub(super) const MAX_PORTS: usize = 16_384;

const SOCKET: u64 = u64::MAX;
const COMMANDS: u64 = u64::MAX - 1;

/// What a handle asks for. Each is acknowledged once it is done.
pub(super) enum Command {
    Attach(PortId, Tap, SyncSender<Result<(), AttachError>>),
    Detach(PortId, SyncSender<()>),
    Publish(Box<Prepared>, SyncSender<Retired>),
    Stats(SyncSender<WorkerStats>),
    Stop,
}

pub(super) struct PacketThread {
    engine: Engine,
    kernel: Kernel,
    epoll: Epoll,
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
    incoming: RecvBatch,
    merges: bool,
    frame: Box<[u8]>,
    /// Of the port that is being read.
    acknowledgements: Acknowledgements,
    /// One of them, with headroom.
    bare: Box<[u8]>,
    /// Who waits until everything follows a snapshot.
    publisher: Option<SyncSender<Retired>>,
    stopping: bool,
}

/// Hears of peers that stopped to answer, and of those that do so again.
pub(super) type OnSilent = Box<dyn FnMut(&[Ipv4Addr]) + Send>;

/// Where the engine's instructions go.
struct Kernel {
    taps: BTreeMap<PortId, Tap>,
    socket: UdpSocket,
    outgoing: SendBatch,
    /// Of frames for one port.
    merge: Merge,
    /// What peers send is put together again; what a port here sends is whole already.
    is_merging: bool,
    staged: Staged,
    drops: DropCounters,
    on_silent: OnSilent,
}

impl Output for Kernel {
    fn frame(&mut self, port: PortId, vnet: VnetHdr, frame: &[u8]) {
        if !self.is_merging {
            return write(&self.taps, &mut self.drops, port, vnet, frame);
        }
        let Self { taps, drops, merge, staged, .. } = self;
        let runs = taps.get(&port).is_some_and(Tap::takes_datagram_runs);
        merge.offer(port, runs, vnet, frame, &mut |port, vnet, frame| {
            staged.push(port, vnet, frame, |port, vnet, frame| write(taps, drops, port, vnet, frame));
        });
    }

    fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]) {
        self.datagram_in_place(to, datagram.len(), |place| place.copy_from_slice(datagram));
    }

    fn datagram_in_place(&mut self, to: Ipv4Addr, len: usize, write: impl FnOnce(&mut [u8])) {
        self.outgoing.push(to, len, write, &self.socket, &mut self.drops);
    }

    fn padded(&self, to: Ipv4Addr, len: usize) -> usize {
        self.outgoing.padded(to, len)
    }

    fn reachability(&mut self, silent: &[Ipv4Addr]) {
        (self.on_silent)(silent);
    }
}

impl PacketThread {
    pub(super) fn new(
        engine: Engine,
        socket: UdpSocket,
        port: u16,
        commands: Receiver<Command>,
        wake: Arc<EventFd>,
        on_silent: OnSilent,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, SOCKET))?;
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, COMMANDS))?;
        let kernel = Kernel {
            taps: BTreeMap::new(),
            socket,
            outgoing: SendBatch::new(port),
            merge: Merge::new(),
            is_merging: false,
            staged: Staged::new(),
            drops: DropCounters::default(),
            on_silent,
        };
        Ok(Self {
            engine,
            kernel,
            epoll,
            commands,
            wake,
            incoming: RecvBatch::new(),
            merges: FastPaths::chosen().merge,
            frame: vec![0; HEADROOM + FRAME_BYTES].into_boxed_slice(),
            acknowledgements: Acknowledgements::new(),
            bare: vec![0; HEADROOM + Acknowledgements::FRAME_BYTES].into_boxed_slice(),
            publisher: None,
            stopping: false,
        })
    }

    /// Runs to completion: no turn blocks anywhere but in the wait for the next event.
    pub(super) fn run(mut self) {
        let mut events = [EpollEvent::empty(); EVENTS_PER_TURN];
        while !self.stopping {
            let ready = match self.epoll.wait(&mut events, self.wait_at_most()) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => {
                    return tracing::error!(%error, "the packet thread cannot wait for packets and ends");
                }
            };
            let mut socket_is_ready = false;
            for event in &events[..ready] {
                match event.data() {
                    SOCKET => socket_is_ready = true,
                    COMMANDS => self.obey(),
                    port => self.read_tap(PortId(port as u32)),
                }
            }
            if socket_is_ready {
                // What was just read goes out first: it need not wait for receivers' kernels to work through what came in.
                self.kernel.flush();
                self.read_socket();
            }
            self.fire_timer();
            self.catch_up();
            self.kernel.flush();
        }
    }

    /// Rounded up: waking before the deadline would only mean to wait again.
    fn wait_at_most(&self) -> EpollTimeout {
        let Some(deadline) = self.engine.poll_timeout() else {
            return EpollTimeout::NONE;
        };
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_nanos(999_999);
        EpollTimeout::try_from(left.as_millis()).unwrap_or(EpollTimeout::MAX)
    }

    /// The engine is handed what waits in the socket before its timer.
    fn fire_timer(&mut self) {
        let overdue = |this: &Self| Instant::now().checked_duration_since(this.engine.poll_timeout()?);
        if overdue(self).is_none() {
            return;
        }
        let is_empty = self.read_socket();
        if is_empty || overdue(self).is_some_and(|late| late >= TIMER_PATIENCE) {
            self.engine.handle_timeout(Instant::now(), &mut self.kernel);
        }
    }

    /// Does a turn's share of what a snapshot left to do. Unlike the timer's work it waits for no empty socket.
    fn catch_up(&mut self) {
        if self.engine.is_behind() {
            self.engine.catch_up(Instant::now(), &mut self.kernel);
        }
        if let Some(retired) = self.engine.take_retired()
            && let Some(publisher) = self.publisher.take()
        {
            let _ = publisher.send(retired);
        }
    }

    /// Whether nothing is left to read.
    fn read_socket(&mut self) -> bool {
        for _ in 0..BATCHES_PER_TURN {
            let now = Instant::now();
            // An error here is one a peer's ICMP message or the interface caused; reading it clears it.
            let more = self.incoming.fill(&self.kernel.socket).unwrap_or(true);
            self.kernel.is_merging = self.merges;
            for (from, datagram) in self.incoming.datagrams() {
                self.engine.handle_datagram(from, datagram, now, &mut self.kernel);
            }
            self.kernel.finish_merging();
            self.write_staged();
            if !more {
                return true;
            }
        }
        false
    }

    /// Between shares the first answers go out, most likely from the port that was written to: the other host can work at
    /// them meanwhile.
    fn write_staged(&mut self) {
        while let Some(port) = self.kernel.write_share() {
            if !self.kernel.staged.is_empty() {
                self.read_tap(port);
                self.kernel.flush();
            }
        }
    }

    fn read_tap(&mut self, port: PortId) {
        let now = Instant::now();
        for _ in 0..FRAMES_PER_TURN {
            // Detached earlier in this turn.
            let Some(tap) = self.kernel.taps.get(&port) else { break };
            match tap.read_frame(&mut self.frame[HEADROOM..]) {
                Ok(Some((vnet, len))) => self.handle_frame(port, vnet, len, now),
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.stop_reading(port, &error);
                    break;
                }
            }
        }
        let Self { engine, kernel, acknowledgements, bare, .. } = self;
        acknowledgements.release(&mut |port, vnet, frame| {
            engine.handle_frame(port, vnet, with_headroom(bare, frame), now, kernel);
        });
    }

    /// An acknowledgement waits for the rest of its port's turn: it may be said again.
    fn handle_frame(&mut self, port: PortId, vnet: VnetHdr, len: usize, now: Instant) {
        let Self { engine, kernel, frame, acknowledgements, bare, .. } = self;
        let frame = &mut frame[..HEADROOM + len];
        let is_held = self.merges
            && acknowledgements.hold_back(port, vnet, &frame[HEADROOM..], &mut |port, vnet, frame| {
                engine.handle_frame(port, vnet, with_headroom(bare, frame), now, kernel);
            });
        if !is_held {
            engine.handle_frame(port, vnet, frame, now, kernel);
        }
    }

    /// The interface is gone: deleted, or with its namespace. Its descriptor would wake this thread forever.
    /// The port stays attached, so that frames for it are counted, until its owner detaches it.
    fn stop_reading(&self, port: PortId, error: &io::Error) {
        if let Some(tap) = self.kernel.taps.get(&port)
            && self.unregister(tap)
        {
            tracing::warn!(%port, interface = tap.name(), %error, "the interface is gone; its port is deaf from here on");
        }
    }

    /// Whether it was watched. It isn't any more once it went away.
    fn unregister(&self, tap: &Tap) -> bool {
        match self.epoll.delete(tap) {
            Ok(()) => return true,
            Err(Errno::ENOENT) => {}
            Err(error) => {
                tracing::error!(interface = tap.name(), %error, "cannot stop watching an interface")
            }
        }
        false
    }

    /// An acknowledgement nobody waits for any more is no error.
    fn obey(&mut self) {
        // Cleared before the queue is read: a command that comes in between wakes the thread again.
        let _ = self.wake.read();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach(port, tap, done) => {
                    let _ = done.send(self.attach(port, tap));
                }
                Command::Detach(port, done) => {
                    self.detach(port);
                    let _ = done.send(());
                }
                Command::Publish(prepared, publisher) => {
                    self.engine.take_up(*prepared, Instant::now(), &mut self.kernel);
                    self.publisher = Some(publisher);
                }
                Command::Stats(done) => {
                    let _ = done.send(self.stats());
                }
                Command::Stop => self.stopping = true,
            }
        }
    }

    fn attach(&mut self, port: PortId, tap: Tap) -> Result<(), AttachError> {
        if self.kernel.taps.contains_key(&port) {
            return Err(AttachError::PortTaken(port));
        }
        if self.kernel.taps.len() == MAX_PORTS {
            return Err(AttachError::TooManyPorts);
        }
        let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(port.0));
        self.epoll.add(&tap, event).map_err(|errno| AttachError::Watch(errno.into()))?;
        self.kernel.taps.insert(port, tap);
        Ok(())
    }

    fn detach(&mut self, port: PortId) {
        if let Some(tap) = self.kernel.taps.remove(&port) {
            self.unregister(&tap);
        }
    }

    fn stats(&self) -> WorkerStats {
        WorkerStats { engine: self.engine.stats(), io_drops: self.kernel.drops.copy_out() }
    }
}

/// A copy of a held frame, as the engine takes it.
fn with_headroom<'a>(place: &'a mut [u8], frame: &[u8]) -> &'a mut [u8] {
    let place = &mut place[..HEADROOM + frame.len()];
    place[HEADROOM..].copy_from_slice(frame);
    place
}

fn write(taps: &BTreeMap<PortId, Tap>, drops: &mut DropCounters, port: PortId, vnet: VnetHdr, frame: &[u8]) {
    let Some(tap) = taps.get(&port) else { return drops.add(IoDrop::NoTap) };
    if let Err(error) = tap.write_frame(vnet, frame) {
        drops.add(IoDrop::of_tap_write(&error));
    }
}

impl Kernel {
    fn finish_merging(&mut self) {
        let Self { taps, drops, merge, staged, .. } = self;
        merge.finish(&mut |port, vnet, frame| {
            staged.push(port, vnet, frame, |port, vnet, frame| write(taps, drops, port, vnet, frame));
        });
        self.is_merging = false;
    }

    fn write_share(&mut self) -> Option<PortId> {
        let Self { taps, drops, staged, .. } = self;
        staged.pop(FRAMES_PER_SHARE, |port, vnet, frame| write(taps, drops, port, vnet, frame))
    }

    fn flush(&mut self) {
        self.outgoing.flush(&self.socket, &mut self.drops);
    }
}
