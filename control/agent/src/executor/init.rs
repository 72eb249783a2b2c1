//! A task's first stage: pid 1 of its pid namespace, which builds the task's world and becomes the command.

use super::mounts;
use super::privileges;
use super::protocol::{Failure, INIT, Order};
use super::shim::EXECUTING;
use super::spec::WORKING_DIRECTORY;
use super::sys;
use super::terminal;
use super::user;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::execve;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

/// Returns only if the task could not be started.
pub(super) fn main() -> ExitCode {
    let Ok(Inherited { order, netns, status, terminal }) = Inherited::take() else {
        let _unheard = writeln!(io::stderr(), "{INIT}: only skepd's shim starts this");
        return ExitCode::FAILURE;
    };
    let mut status = File::from(status);
    let Err(failure) = become_command(File::from(order), netns, &mut status, terminal);
    let _shim_gone = serde_json::to_writer(status, &failure);
    ExitCode::FAILURE
}

struct Inherited {
    order: OwnedFd,
    netns: OwnedFd,
    status: OwnedFd,
    /// Where to send the master of the task's terminal.
    terminal: Option<OwnedFd>,
}

impl Inherited {
    fn take() -> io::Result<Self> {
        let mut fds = std::env::args().skip(1).map(|number| sys::inherited(&number));
        let mut next = || fds.next().unwrap_or(Err(io::ErrorKind::NotFound.into()));
        let (order, netns, status) = (next()?, next()?, next()?);
        Ok(Self { order, netns, status, terminal: fds.next().transpose()? })
    }
}

fn become_command(
    order: File,
    netns: OwnedFd,
    status: &mut File,
    terminal: Option<OwnedFd>,
) -> Result<Infallible, Failure> {
    step("tie the task to its shim", die_with_shim(status))?;
    let order = step("read the order", read(order))?;
    step("enter the network namespace", setns(netns, CloneFlags::CLONE_NEWNET))?;
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    step("make namespaces", unshare(own))?;
    step("set the host name", nix::unistd::sethostname(&order.hostname))?;
    mounts::build(&order)?;
    let user = user::look_up(&order.user)?;
    let doing = format!("enter the working directory {}", order.dir.display());
    step(doing, nix::unistd::chdir(&order.dir))?;
    step("leave the daemon's session", privileges::leave_session())?;
    if let Some(socket) = terminal {
        step("make its terminal", terminal::take(order.terminal.unwrap_or_default(), socket.into()))?;
    }
    step("give up privileges", privileges::give_up())?;
    if let Some(user) = user {
        step("hand its files to its user", user.own(Path::new(WORKING_DIRECTORY)))?;
        step("change its user", user.assume())?;
        // Forgotten with the change of user (prctl(2)).
        step("tie the task to its shim", die_with_shim(status))?;
    }
    step("report", status.write_all(&[EXECUTING]))?;
    execute(&order)
}

/// Names what failed.
pub(super) fn step<T, E: Into<io::Error>>(
    doing: impl Into<String>,
    result: Result<T, E>,
) -> Result<T, Failure> {
    result.map_err(|error| Failure::setup(doing, &error.into()))
}

/// The shim's death is the task's. The parent pid tells nothing in a pid namespace of one's own, so whether the
/// shim died before the kernel was asked shows in the pipe it reads from.
fn die_with_shim(status: &File) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut fds = [PollFd::new(status.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO)?;
    match fds[0].revents() {
        Some(events) if events.contains(PollFlags::POLLERR) => Err(io::ErrorKind::BrokenPipe.into()),
        _ => Ok(()),
    }
}

fn read(mut order: File) -> io::Result<Order> {
    let mut text = Vec::new();
    order.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Executes the command, looked up in the task's own PATH as execvp(3) does.
fn execute(order: &Order) -> Result<Infallible, Failure> {
    let name = order.args.first().map_or("", String::as_str);
    let failed = |errno: Errno| Failure { command: true, doing: name.to_owned(), errno: errno as i32 };
    let c_strings = |texts: &[String]| texts.iter().map(|text| CString::new(text.as_str())).collect();
    let args: Vec<CString> = Result::map_err(c_strings(&order.args), |_| failed(Errno::EINVAL))?;
    let env: Vec<CString> = Result::map_err(c_strings(&order.env), |_| failed(Errno::EINVAL))?;
    let mut reason = Errno::ENOENT;
    for path in candidates(name, &order.env) {
        let Ok(program) = CString::new(path.as_str()) else { return Err(failed(Errno::EINVAL)) };
        match execve(&program, &args, &env) {
            Ok(never) => match never {},
            Err(Errno::ENOENT) if Path::new(&path).exists() => return Err(failed(Errno::ELIBACC)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(Errno::EACCES) => reason = Errno::EACCES,
            Err(errno) => return Err(failed(errno)),
        }
    }
    Err(failed(reason))
}

fn candidates(name: &str, env: &[String]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let directories = path.split(':').map(|directory| if directory.is_empty() { "." } else { directory });
    directories.map(|directory| format!("{directory}/{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_is_looked_for_along_the_tasks_path() {
        let env = ["HOME=/".to_owned(), "PATH=/a::/b".to_owned()];
        assert_eq!(candidates("x", &env), ["/a/x", "./x", "/b/x"]);
        assert_eq!(candidates("./x", &env), ["./x"]);
        assert_eq!(candidates("/c/x", &env), ["/c/x"]);
    }
}
