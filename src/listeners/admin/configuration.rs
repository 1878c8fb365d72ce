//! What `/debug/actors` says of the configuration in use.

use std::sync::Arc;

use claviger_actors::clock::Timestamp;
use parking_lot::RwLock;
use serde::Serialize;

/// The configuration in use, and the last one that was not taken. Cheap to clone; all clones show the
/// same.
#[derive(Clone, Debug)]
pub struct ConfigurationStatus(Arc<RwLock<Status>>);

#[derive(Clone, Debug, Serialize)]
struct Status {
    /// When the one in use was loaded.
    #[serde(serialize_with = "as_text")]
    loaded_at: Timestamp,
    /// Configurations taken since the start, the first one aside.
    reloads: u64,
    /// Configurations refused since the start.
    refused: u64,
    /// Every fault of the last one, if it was refused.
    last_error: Option<String>,
    /// Keys whose values count only after a restart.
    needs_restart: Vec<String>,
}

fn as_text<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

impl ConfigurationStatus {
    /// Of a gateway that started with a configuration loaded at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(RwLock::new(Status {
            loaded_at: now,
            reloads: 0,
            refused: 0,
            last_error: None,
            needs_restart: Vec::new(),
        })))
    }

    /// Another configuration was taken, except for the keys of `needs_restart`.
    pub fn taken(&self, now: Timestamp, needs_restart: Vec<String>) {
        let mut status = self.0.write();
        status.reloads += 1;
        (status.loaded_at, status.last_error, status.needs_restart) = (now, None, needs_restart);
    }

    /// Another configuration was refused. `why` must hold no secret.
    pub fn refused(&self, why: String) {
        let mut status = self.0.write();
        status.refused += 1;
        status.last_error = Some(why);
    }

    /// The last configuration was taken, except for what `fault` tells of.
    pub fn note(&self, fault: String) {
        self.0.write().last_error = Some(fault);
    }

    pub(super) fn show(&self) -> impl Serialize + use<> {
        self.0.read().clone()
    }
}
