//! How the rest of the daemon talks to the packet thread.

use super::drops::IoDrop;
use super::tap::Tap;
use super::udp::{self, UdpError};
use super::worker::{Command, MAX_PORTS, PacketThread};
use crate::ids::PortId;
use crate::seal::Identity;
use crate::snapshot::Snapshot;
use crate::{Engine, Indexer, Stats};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Commands under way at once. A caller beyond it waits its turn, which takes microseconds.
const COMMAND_CAPACITY: usize = 64;

/// What a packet thread needs to know.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// This host's address on the underlay: what the other VTEPs send to, and see as the source.
    pub vtep: Ipv4Addr,
    /// The UDP port of every VTEP (RFC 7348: 4789).
    pub port: u16,
    /// Decides everything in the engine that would otherwise be random and that nobody has to be kept from guessing.
    pub seed: u64,
    pub identity: Identity,
}

/// The packet thread: one std thread that owns the engine, the TAPs and the UDP socket.
#[derive(Debug)]
pub struct Worker;

/// Reaches the packet thread; clones reach the same one.
///
/// Every call returns when the thread has done what was asked, which mostly takes microseconds. They block: async
/// code on a busy runtime wraps them in `spawn_blocking`. When the last clone is dropped the thread ends and
/// its TAPs and socket are closed.
#[derive(Clone, Debug)]
pub struct Handle {
    link: Arc<Link>,
}

/// Counters since the thread started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    pub engine: Stats,
    /// What the kernel would not take: every reason with its count.
    pub io_drops: Vec<(IoDrop, u64)>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Udp(#[from] UdpError),
    #[error("cannot start the packet thread")]
    Thread(#[source] io::Error),
}

/// The thread was shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet thread has ended")]
pub struct WorkerGone;

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("{0} already has a TAP")]
    PortTaken(PortId),
    #[error("this host already has {MAX_PORTS} ports, the most there can be")]
    TooManyPorts,
    #[error("cannot watch the TAP for packets")]
    Watch(#[source] io::Error),
    #[error(transparent)]
    Gone(#[from] WorkerGone),
}

impl Worker {
    /// Opens the UDP socket in the calling thread's network namespace and starts the thread.
    ///
    /// `on_silent` is called on that thread with every peer that does not answer on the data path, by address, each
    /// time the set changes ([`Output::reachability`](crate::Output::reachability)). It must not block.
    pub fn spawn(
        config: WorkerConfig,
        on_silent: impl FnMut(&[Ipv4Addr]) + Send + 'static,
    ) -> Result<Handle, StartError> {
        let socket = udp::open(config.vtep, config.port)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| StartError::Thread(errno.into()))?;
        let wake = Arc::new(wake);
        let (commands, inbox) = sync_channel(COMMAND_CAPACITY);
        let engine = Engine::new(config.seed, config.identity);
        let indexer = Mutex::new(engine.indexer());
        let packets =
            PacketThread::new(engine, socket, config.port, inbox, wake.clone(), Box::new(on_silent))
                .map_err(StartError::Thread)?;
        let thread = thread::Builder::new()
            .name("skep-packets".to_owned())
            .spawn(move || packets.run())
            .map_err(StartError::Thread)?;
        let link = Link { commands, wake, indexer, thread: Mutex::new(Some(thread)) };
        Ok(Handle { link: Arc::new(link) })
    }
}

impl Handle {
    /// Gives the thread a TAP to serve as `port`.
    pub fn attach(&self, port: PortId, tap: Tap) -> Result<(), AttachError> {
        self.ask(|done| Command::Attach(port, tap, done))?
    }

    /// Closes a port's TAP, which ends its interface. No effect if the port isn't attached.
    pub fn detach(&self, port: PortId) -> Result<(), WorkerGone> {
        self.ask(|done| Command::Detach(port, done))
    }

    /// Makes `snapshot` the truth of forwarding. A frame for a local port that has no TAP yet is dropped.
    ///
    /// Its tables are built and the old ones taken down here, which takes milliseconds in a large cluster: packets are
    /// forwarded meanwhile.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Result<(), WorkerGone> {
        let mut indexer = self.link.indexer.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = Box::new(indexer.prepare(snapshot));
        self.ask(|done| Command::Publish(prepared, done)).map(drop)
    }

    pub fn stats(&self) -> Result<WorkerStats, WorkerGone> {
        self.ask(Command::Stats)
    }

    /// Ends the thread and closes its TAPs and socket, also while other clones exist.
    pub fn shutdown(&self) {
        self.link.stop();
    }

    fn ask<T>(&self, command: impl FnOnce(SyncSender<T>) -> Command) -> Result<T, WorkerGone> {
        let (done, answer) = sync_channel(1);
        self.link.commands.send(command(done)).map_err(|_| WorkerGone)?;
        self.link.wake();
        answer.recv().map_err(|_| WorkerGone)
    }
}

struct Link {
    commands: SyncSender<Command>,
    wake: Arc<EventFd>,
    /// Held until its snapshot is in force: each is prepared as the successor of the one before.
    indexer: Mutex<Indexer>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    fn wake(&self) {
        // Fails only when the counter is full, and then the thread has been woken already.
        let _ = self.wake.write(1);
    }

    fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else {
            return;
        };
        // Fails if the thread has ended by itself.
        let _ = self.commands.send(Command::Stop);
        self.wake();
        if thread.join().is_err() {
            tracing::error!("the packet thread ended by a panic");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Holder, Process};
    use super::*;
    use crate::seal::{SecretKey, Suite};
    use crate::snapshot::Peer;
    use std::net::{IpAddr, UdpSocket};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};
    use zeroize::Zeroizing;

    fn free_port() -> u16 {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port()
    }

    fn identity(n: u8) -> Identity {
        let key = SecretKey::from_bytes(Zeroizing::new([n; 32]));
        let entropy = Zeroizing::new([n; 32]);
        Identity { key, suite: Suite::default(), context: Vec::new(), entropy }
    }

    fn config(port: u16) -> WorkerConfig {
        WorkerConfig { vtep: Ipv4Addr::LOCALHOST, port, seed: 1, identity: identity(1) }
    }

    /// A peer of another host: an engine on a socket of its own, for a host has one VTEP.
    struct Answering {
        engine: Engine,
        socket: Sent,
    }

    struct Sent(UdpSocket, u16);

    impl crate::Output for Sent {
        fn frame(&mut self, _: PortId, _: crate::VnetHdr, _: &[u8]) {}

        fn datagram(&mut self, to: Ipv4Addr, datagram: &[u8]) {
            self.0.send_to(datagram, (to, self.1)).unwrap();
        }

        fn reachability(&mut self, _: &[Ipv4Addr]) {}
    }

    impl Answering {
        fn new((vtep, port): (Ipv4Addr, u16), n: u8, snapshot: Arc<Snapshot>) -> Self {
            let socket = UdpSocket::bind((vtep, port)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let (mut engine, mut socket) = (Engine::new(1, identity(n)), Sent(socket, port));
            engine.apply(snapshot, Instant::now(), &mut socket);
            Self { engine, socket }
        }

        fn run(mut self, until: &AtomicBool) {
            let mut buffer = vec![0; 1 << 16];
            while !until.load(Ordering::Relaxed) {
                if let Ok((len, from)) = self.socket.0.recv_from(&mut buffer) {
                    let IpAddr::V4(from) = from.ip() else { continue };
                    let now = Instant::now();
                    self.engine.handle_datagram(from, &mut buffer[..len], now, &mut self.socket);
                }
                self.engine.handle_timeout(Instant::now(), &mut self.socket);
            }
        }
    }

    #[test]
    fn commands_are_answered_until_the_shutdown() {
        let handle = Worker::spawn(config(free_port()), |_| ()).unwrap();
        let clone = handle.clone();
        handle.publish(Arc::new(Snapshot::default())).unwrap();
        assert_eq!(handle.stats().unwrap().io_drops.len(), IoDrop::ALL.len());
        handle.shutdown();
        assert_eq!(clone.publish(Arc::new(Snapshot::default())), Err(WorkerGone));
        assert_eq!(clone.stats(), Err(WorkerGone));
    }

    #[test]
    fn the_last_handle_frees_the_port() {
        let port = free_port();
        drop(Worker::spawn(config(port), |_| ()).unwrap());
        drop(Worker::spawn(config(port), |_| ()).unwrap());
    }

    #[test]
    fn a_second_worker_is_told_which_process_holds_the_port() {
        let port = free_port();
        let _first = Worker::spawn(config(port), |_| ()).unwrap();
        let elsewhere = WorkerConfig { vtep: Ipv4Addr::new(127, 0, 0, 2), ..config(port) };
        let second = Worker::spawn(elsewhere, |_| ());
        let Err(StartError::Udp(UdpError::InUse { holder: Holder::Process(Process { pid, .. }), .. })) =
            second
        else {
            panic!("{second:?}");
        };
        assert_eq!(pid, std::process::id());
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        let elsewhere = WorkerConfig { vtep: Ipv4Addr::new(192, 0, 2, 1), ..config(free_port()) };
        let error = Worker::spawn(elsewhere, |_| ()).unwrap_err();
        assert!(error.to_string().contains("192.0.2.1 is not an address of this host"), "{error}");
    }

    #[test]
    fn a_peer_that_stops_to_answer_is_told_of_and_so_is_its_return() {
        let port = free_port();
        let (said, heard) = std::sync::mpsc::channel();
        let handle = Worker::spawn(config(port), move |silent| _ = said.send(silent.to_vec())).unwrap();
        let vtep = Ipv4Addr::new(127, 0, 0, 2);
        let knowing = |vtep, n| {
            let peers = vec![Peer { vtep, key: identity(n).key.public() }];
            Arc::new(Snapshot { peers, underlay_mtu: 9_000, ..Snapshot::default() })
        };
        handle.publish(knowing(vtep, 2)).unwrap();
        let patience = Duration::from_secs(10);
        assert_eq!(heard.recv_timeout(patience), Ok(vec![vtep]), "it has never answered");
        let stop = Arc::new(AtomicBool::new(false));
        let peer = Answering::new((vtep, port), 2, knowing(Ipv4Addr::LOCALHOST, 1));
        let until = stop.clone();
        let thread = thread::spawn(move || peer.run(&until));
        assert_eq!(heard.recv_timeout(patience), Ok(vec![]), "it answers");
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        assert_eq!(heard.recv_timeout(patience), Ok(vec![vtep]), "it has stopped to answer");
        let path = &handle.stats().unwrap().engine.paths[0];
        assert!(path.silent && path.answered >= 2 && path.asked > path.answered, "{path:?}");
        assert_eq!((path.session.handshakes, path.mtu), (1, 9_000));
    }
}
