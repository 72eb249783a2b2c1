//! The executor's shim without a daemon around it, for the executor's own tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    skep_agent::executor::run_if_shim().unwrap_or(ExitCode::FAILURE)
}
