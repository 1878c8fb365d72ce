//! The command itself: sandbox, calendar API and gateway in one process, until it is told to end.

use std::io::{self, Write as _};

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use super::{Demo, DemoError};
use crate::app::{AppError, RunningApp};
use crate::config::error::ConfigErrors;

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
    actix_rt::System::new().block_on(async {
        // First of all, so that an early Ctrl-C leaves no folder behind.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let demo = Demo::start(port_base).await?;
        let gateway = RunningApp::start(demo.load_config()?).await?;
        io::stdout().write_all(demo.guide().as_bytes())?;
        let supervisor = gateway.gateway().supervisor().clone();
        let ended = tokio::select! {
            biased;
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            () = supervisor.ended() => Err(AppError::EngineEnded),
        };
        gateway.stop().await;
        demo.stop().await?;
        Ok(ended?)
    })
}
