//! What `scripts/bench` needs beside the gateway and the proxies that it is compared with.

mod fill;
mod floor;
mod load;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why a command did not do as asked.
pub(crate) type Fault = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves as the least proxy that hyper allows.
    Floor(floor::Arguments),
    /// Sends requests at a constant rate and prints their latencies as JSON.
    Load(load::Arguments),
    /// Copies one stored connection under many subjects.
    Fill(fill::Arguments),
}

/// Prints one line of JSON for the script that asked.
pub(crate) fn print(value: &serde_json::Value) -> Result<(), Fault> {
    Ok(writeln!(std::io::stdout(), "{value}")?)
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Floor(arguments) => floor::run(arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::Fill(arguments) => fill::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}
