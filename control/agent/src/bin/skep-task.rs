//! Runs one command as a task, in this process's network namespace and without a cluster: for tests, and to look
//! around in what a task sees. `skep-task [--hide PATH]… STATE_DIR COMMAND [ARGUMENT]…` prints the pid of the
//! task, waits for its end, and prints its log.

use skep_agent::executor::{
    ExecutorConfig, ProcessExecutor, ProcessIo, ProcessSpec, ReadOptions, run_if_shim,
};
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = run_if_shim() {
        return code;
    }
    match run() {
        Ok(code) => code,
        Err(error) => {
            let _unheard = writeln!(std::io::stderr(), "skep-task: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args == ["--write-to-own-executable"] {
        OpenOptions::new().write(true).truncate(true).open("/proc/self/exe")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut hidden = Vec::new();
    while args.first().is_some_and(|option| option == "--hide") && args.len() > 1 {
        hidden.extend(args.drain(..2).nth(1).map(PathBuf::from));
    }
    if args.len() < 2 {
        return Err("usage: skep-task [--hide PATH]… STATE_DIR COMMAND [ARGUMENT]…".into());
    }
    let executor = ProcessExecutor::new(ExecutorConfig::new(PathBuf::from(args.remove(0)), hidden))?;
    let task = executor.start(spec(args)?).await?;
    let mut out = std::io::stdout();
    writeln!(out, "pid {}", task.pid())?;
    out.flush()?;
    let exit = task.wait().await;
    let mut log = executor.logs("task", ReadOptions::default())?;
    while let Some(line) = log.recv().await {
        writeln!(out, "{}", line.text)?;
    }
    Ok(ExitCode::from(u8::try_from(exit.code)?))
}

fn spec(args: Vec<String>) -> std::io::Result<ProcessSpec> {
    Ok(ProcessSpec {
        id: "task".into(),
        netns: File::open("/proc/self/ns/net")?.into(),
        hostname: "task".into(),
        args,
        env: Vec::new(),
        resolv_conf: "nameserver 127.0.0.11\n".into(),
        hosts: "127.0.0.1 localhost\n".into(),
        dir: String::new(),
        user: String::new(),
        io: ProcessIo::Log,
        terminal: None,
    })
}
