//! The `claviger` binary.

use std::io::{self, Write as _};
use std::process::ExitCode;

use claviger::cli::{Cli, Outcome, Streams};
use claviger::config::environment::ProcessEnvironment;
use claviger::{app, demo, telemetry};
use rustix::fs::Mode;
use rustix::process::umask;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // What this process makes is for its owner alone, from the moment it is there: the store, above all.
    umask(Mode::RWXG | Mode::RWXO);
    let outcome = {
        let mut streams =
            Streams { input: &mut io::stdin().lock(), output: &mut io::stdout(), errors: &mut io::stderr() };
        Cli::of_process().execute(&ProcessEnvironment, &mut streams)
    };
    let outcome = match outcome {
        Outcome::Done(code) => return code,
        outcome => telemetry::start(&ProcessEnvironment)
            .map_err(|error| error.to_string())
            .and_then(|()| serve(outcome)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _ = writeln!(io::stderr(), "{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Runs until told to stop.
fn serve(outcome: Outcome) -> Result<(), String> {
    match outcome {
        Outcome::Done(_) => Ok(()),
        Outcome::Serve(config, file) => app::run(*config, file).map_err(|error| error.to_string()),
        Outcome::Demo { port_base } => demo::run(port_base).map_err(|error| error.to_string()),
    }
}
