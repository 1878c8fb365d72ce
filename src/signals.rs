//! The signals that tell the process to end, to look at its configuration, or to
//! hand over.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT. From [`StopSignals::listen`] on they no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// SIGHUP: the configuration has changed. Must be called within a tokio runtime.
pub(crate) fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// SIGUSR2: the program is to be started anew. Must be called within a tokio runtime.
pub(crate) fn handovers() -> io::Result<Signal> {
    signal(SignalKind::user_defined2())
}

impl StopSignals {
    /// Must be called within a tokio runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for either; one that came before is not lost.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
