//! The `claviger` binary.

use std::io;
use std::process::ExitCode;

use claviger::cli::{Cli, Outcome, Streams};
use claviger::config::environment::ProcessEnvironment;
use claviger::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut streams =
        Streams { input: &mut io::stdin().lock(), output: &mut io::stdout(), errors: &mut io::stderr() };
    let outcome = Cli::of_process().execute(&ProcessEnvironment, &mut streams);
    if let Outcome::Done(code) = outcome {
        return code;
    }
    if let Err(error) = telemetry::start(&ProcessEnvironment) {
        let _ = writeln!(streams.errors, "{error}");
        return ExitCode::FAILURE;
    }
    // The wiring of `app` and `demo` goes here.
    ExitCode::SUCCESS
}
