//! Says from `Drop` that an actor ended, and whether it panicked.

/// How an actor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// It stopped itself, or was stopped.
    Stopped,
    /// A handler panicked; where (file and line), never with what message.
    Panicked {
        /// Source location of the panic.
        location: String,
    },
}

/// Held in the struct of every supervised actor, whose last field it should be.
#[derive(Debug)]
pub struct ExitGuard {}

impl ExitGuard {
    /// A guard that reports to nobody, for tests.
    pub fn detached() -> Self {
        Self {}
    }
}
