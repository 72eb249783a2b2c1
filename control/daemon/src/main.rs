//! `skepd`: one per host. Agent always, manager when it has that role.

mod addresses;
mod api;
mod member;
mod metrics;
mod node;
mod secrecy;

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::sys::stat::{Mode, umask};
use node::{Config, Node};
use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// The Skep daemon: overlays, virtual IPs, published ports and names for this host.
#[derive(Parser)]
#[command(version, about)]
struct Options {
    /// Where the API listens
    #[arg(long, value_name = "PATH", default_value = "/run/skep/skep.sock")]
    socket: PathBuf,
    /// Where keys and state are kept (mode 0700)
    #[arg(long, value_name = "PATH", default_value = "/var/lib/skep")]
    state_dir: PathBuf,
    /// What runs tasks; "process" is the only one in this release
    #[arg(long, value_name = "NAMES", default_value = "process")]
    executor: String,
    /// Where Prometheus finds /metrics; nowhere if not given. Whoever reaches it may read it
    #[arg(long, value_name = "IP:PORT", value_parser = metrics::address)]
    metrics_addr: Option<SocketAddr>,
}

fn main() -> ExitCode {
    if let Some(code) = skep_agent::executor::run_if_shim() {
        return code;
    }
    let options = Options::parse();
    let filter = EnvFilter::try_from_env("SKEP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("skepd cannot go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    if options.executor != "process" {
        bail!("--executor {}: this release has only \"process\"", options.executor);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("skepd makes network namespaces and interfaces: start it as root");
    }
    secrecy::keep();
    private_directory(&options.state_dir)?;
    let _alone = (alone_on_host()?, alone_in(&options.state_dir)?);
    allow_many_files();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(serve(options))
}

async fn serve(options: Options) -> Result<()> {
    let listener = listen(&options.socket).await?;
    let metrics = match options.metrics_addr {
        Some(addr) => Some(metrics::Server::bind(addr).await?),
        None => None,
    };
    let socket = options.socket.canonicalize().unwrap_or_else(|_| options.socket.clone());
    let state_dir = options.state_dir.canonicalize().context("state directory")?;
    let node = Node::start(Config { socket: socket.clone(), state_dir }).await?;
    let node = Arc::new(node);
    let signalled = until_signal()?;
    info!(socket = %socket.display(), "ready");

    let (stop, stopped) = watch::channel(false);
    let wait = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let server = tokio::spawn(api::serve(listener, node.clone(), wait(stopped)));
    let metrics = metrics.map(|server| tokio::spawn(server.serve(node.clone())));
    let resumed = tokio::spawn({
        let node = node.clone();
        async move { node.resume().await }
    });
    let signal = signalled.await;
    info!(signal, "stopping");
    resumed.abort();
    let _ = stop.send(true);
    node.shutdown().await;
    // A client that follows logs would keep the server up: the process is going, so its answers may be cut.
    server.abort();
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    let _ = fs::remove_file(&socket);
    Ok(())
}

/// From this call on, not from the first poll: whoever is told that the daemon is ready may stop it at once.
fn until_signal() -> Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// A task costs a handful of descriptors here; the usual soft limit of 1024 would end at 200 tasks.
fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files: about 200 tasks fit");
    }
}

/// Binds the API socket; one left by a killed daemon is replaced, one that answers is not.
async fn listen(path: &Path) -> Result<UnixListener> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}: choose another --socket", parent.display()))?;
    }
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            bail!("{} is there and is no socket: remove it, or choose another --socket", path.display());
        }
        if answers(path).await {
            bail!(
                "another skepd answers on {}: stop it, or choose another --socket and --state-dir",
                path.display()
            );
        }
        fs::remove_file(path).with_context(|| format!("removing the stale {}", path.display()))?;
    }
    // Whoever may write here is root on this host: owner and group only, from the first moment on.
    let usual = umask(Mode::from_bits_truncate(0o117));
    let bound = UnixListener::bind(path);
    umask(usual);
    let listener =
        bound.with_context(|| format!("cannot listen on {}: choose another --socket", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).context("mode of the API socket")?;
    Ok(listener)
}

/// How long another daemon gets to show that it lives.
const PROOF_OF_LIFE: Duration = Duration::from_secs(1);

/// Whether a daemon speaks on the socket. One that was killed a moment ago may still have it open, silently.
async fn answers(path: &Path) -> bool {
    let ping = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").await?;
        stream.read_u8().await
    };
    matches!(tokio::time::timeout(PROOF_OF_LIFE, ping).await, Ok(Ok(_)))
}

/// How long a daemon that was killed gets to be gone.
const DEATH_LIMIT: Duration = Duration::from_secs(2);
const DEATH_POLL: Duration = Duration::from_millis(20);

/// A second daemon would take the first one's bridge, nft table and tasks for leftovers and clear them. Abstract
/// sockets belong to a network namespace, as bridge and table do, and go with the process.
fn alone_on_host() -> Result<UnixDatagram> {
    let address = UnixAddr::from_abstract_name("skepd").context("naming the lock")?;
    let bound = once_free(|| match UnixDatagram::bind_addr(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        bound => bound.map(Some),
    });
    let lock =
        bound.context("locking this host")?.context("another skepd runs on this host: stop it first")?;
    // It is a name and nothing else: whoever sends to it is refused.
    lock.shutdown(Shutdown::Read).context("closing the lock to others")?;
    Ok(lock)
}

/// The same state directory may be seen from two network namespaces.
fn alone_in(state_dir: &Path) -> Result<fs::File> {
    let path = state_dir.join("lock");
    let file = fs::File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    let locked = once_free(|| match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
        Ok(()) => Ok(Some(())),
    });
    locked.with_context(|| format!("locking {}", path.display()))?.with_context(|| {
        format!("another skepd uses {}: stop it, or choose another --state-dir", state_dir.display())
    })?;
    Ok(file)
}

/// What `take` takes, None if it stays taken for longer than a killed process needs to end.
fn once_free<T>(mut take: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    let deadline = Instant::now() + DEATH_LIMIT;
    loop {
        match take()? {
            None if Instant::now() < deadline => std::thread::sleep(DEATH_POLL),
            taken => return Ok(taken),
        }
    }
}

fn private_directory(path: &Path) -> Result<()> {
    let create = || -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    };
    create().with_context(|| {
        format!(
            "{} cannot be the state directory: make room for it, or choose another --state-dir",
            path.display()
        )
    })
}
