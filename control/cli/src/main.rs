//! `skep`: docker's verbs and tables for a Skep cluster. A client of the daemon's API on its unix socket.

mod attach;
mod cli;
mod client;
mod duration;
mod later;
mod mux;
mod network;
mod node;
mod out;
mod query;
mod run;
mod service;
mod show;
mod swarm;
mod system;
mod tasks;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};
use client::Client;

/// What docker exits with when the command line is wrong or `run` fails before the process started.
const EXIT_USAGE: u8 = 125;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into(), 1),
    };
    let for_run = matches!(cli.command, Command::Run(_));
    let done = runtime.block_on(dispatch(cli));
    // Not waiting for a read of the terminal that nobody needs any more.
    runtime.shutdown_background();
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error, if for_run { run::exit_code_of(&error) } else { 1 }),
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    let client = Client::new(&cli.host)?;
    match cli.command {
        Command::Swarm(command) => swarm::run(&client, command).await,
        Command::Node(command) => node::run(&client, command).await,
        Command::Network(command) => network::run(&client, command).await,
        Command::Service(command) => service::run(&client, command).await,
        Command::Info(format) => system::info(&client, &format).await,
        Command::Version(format) => system::version(&client, &format).await,
        Command::Attach(args) => attach::attach(&client, args).await,
        Command::Detach(args) => attach::detach(&client, args).await,
        Command::Run(args) => run::run(&client, args).await,
        Command::Other(words) => later::refuse("", &words),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("{error:#}");
    ExitCode::from(code)
}

/// Help goes to stdout and is no failure; a wrong command line gets clap's words, or ours for what docker has and
/// Skep doesn't.
fn usage(error: &clap::Error) -> ExitCode {
    if let Some(sentence) = later::explain(error) {
        eprintln!("{sentence}");
        return ExitCode::from(EXIT_USAGE);
    }
    // Nothing is left to tell anyone if neither stream takes it.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
}

/// The reader of our output has seen enough (`skep service logs web | head`).
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
