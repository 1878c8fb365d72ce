//! The command itself: sandbox, calendar API and gateway in one process, until it is told to end.

use std::io::{self, Write as _};

use thiserror::Error;

use super::{Demo, DemoError};
use crate::app::{AppError, RunningApp};
use crate::config::error::ConfigErrors;
use crate::signals::StopSignals;

/// Why the demo ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The demo's own part did not start.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The gateway refuses the configuration that was written for it: a fault of ours.
    #[error("the demo's configuration is refused:\n{0}")]
    Config(#[from] ConfigErrors),
    /// The gateway did not start, or ended.
    #[error(transparent)]
    App(#[from] AppError),
    /// Signals or standard output cannot be had.
    #[error("the demo could not start: {0}")]
    Io(#[from] io::Error),
}

/// Runs the demo and prints its guide, until it is told to end (SIGTERM or SIGINT).
///
/// # Errors
/// [`RunError`]; the throw-away folder is removed then, too.
pub fn run(port_base: Option<u16>) -> Result<(), RunError> {
    let system = actix_rt::System::new();
    // The signals first of all, so that an early Ctrl-C leaves no folder behind.
    let mut signals = system.block_on(async { StopSignals::listen() })?;
    let demo = system.block_on(Demo::start(port_base))?;
    let ended = system.block_on(serve(&demo, &mut signals));
    // The store closes with the engine; only then may its files go.
    drop(system);
    drop(demo);
    ended
}

async fn serve(demo: &Demo, signals: &mut StopSignals) -> Result<(), RunError> {
    let gateway = RunningApp::start(demo.load_config()?).await?;
    io::stdout().write_all(demo.guide().as_bytes())?;
    let ended = gateway.serve(signals).await;
    demo.stop().await;
    Ok(ended?)
}
