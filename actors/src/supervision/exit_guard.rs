//! Says from `Drop` that an actor ended, and whether it panicked.

use std::cell::Cell;
use std::fmt;
use std::panic;
use std::sync::Once;

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

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Panicked { location } => write!(f, "panicked at {location}"),
        }
    }
}

/// Held in the struct of every supervised actor, whose last field it should be.
///
/// After a panic actix still calls the actor's `stopping` and `stopped` while it unwinds, so these
/// must not panic: a second panic there ends the process.
pub struct ExitGuard {
    report: Option<Box<dyn FnOnce(ExitReason) + Send>>,
}

impl ExitGuard {
    /// A guard that calls `report` once, when it is dropped.
    pub(super) fn new(report: impl FnOnce(ExitReason) + Send + 'static) -> Self {
        Self { report: Some(Box::new(report)) }
    }

    /// A guard that reports to nobody, for tests of single actors.
    pub fn detached() -> Self {
        Self { report: None }
    }
}

impl fmt::Debug for ExitGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExitGuard").field("detached", &self.report.is_none()).finish()
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        let Some(report) = self.report.take() else { return };
        report(if std::thread::panicking() {
            ExitReason::Panicked { location: last_panic_location() }
        } else {
            ExitReason::Stopped
        });
    }
}

thread_local! {
    static LAST_PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

fn last_panic_location() -> String {
    let noted = LAST_PANIC.try_with(Cell::take).ok().flatten();
    noted.unwrap_or_else(|| "an unknown place".to_owned())
}

/// Notes where a thread panics, for the guards that are dropped next. The hook that was there
/// before still runs.
pub(super) fn note_panic_locations() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(location) = info.location() {
                let place = format!("{}:{}", short_path(location.file()), location.line());
                // Fails only while the thread itself ends.
                let _ = LAST_PANIC.try_with(|last| last.set(Some(place)));
            }
            previous(info);
        }));
    });
}

/// A dependency's path without the place where this machine keeps it.
fn short_path(file: &str) -> &str {
    file.rsplit_once("/registry/src/")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map_or(file, |(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::short_path;

    #[test]
    fn a_dependency_is_named_without_the_home_directory() {
        let file = "/home/x/.cargo/registry/src/index.crates.io-1949/actix-0.13.5/src/lib.rs";
        assert_eq!(short_path(file), "actix-0.13.5/src/lib.rs");
        assert_eq!(short_path("actors/src/lib.rs"), "actors/src/lib.rs");
    }
}
