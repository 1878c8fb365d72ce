//! The durable home of connections and pending flows.
//!
//! A backend keeps opaque, sealed values under ordered keys, with a revision each; it knows
//! nothing of tokens. To add one: a new file here, one `mod` line and one row in [`BACKENDS`].

#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod keyring;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod sealed;
#[cfg(test)]
mod sealed_tests;
pub mod sled;
mod sled_database;
mod sled_files;
#[cfg(test)]
mod sled_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::registration::settings::{Settings, SettingsError};

/// Opens a backend whose settings were found good. It runs on the calling thread, at start-up.
pub type StoreOpener = Box<dyn FnOnce() -> Result<Arc<dyn TokenStore>, StoreError> + Send>;

/// A row of [`BACKENDS`].
pub struct BackendRow {
    /// The value of `backend` in the configuration.
    pub name: &'static str,
    /// Takes what is the backend's own from its settings and checks it; touches nothing yet.
    pub build: fn(&mut Settings) -> Result<StoreOpener, SettingsError>,
}

/// All backends, by the name the configuration uses.
pub const BACKENDS: &[BackendRow] = &[BackendRow { name: "sled", build: sled::build }];

/// The backend called `name`.
pub fn find(name: &str) -> Option<&'static BackendRow> {
    BACKENDS.iter().find(|row| row.name == name)
}

/// What kind of record it is; each kind has a key space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Token sets, by profile and subject.
    Connection,
    /// Pending authorizations, by the hash of their `state`.
    Flow,
    /// One-time connect links, by the hash of their token.
    ConnectSession,
    /// Key checks, and clients that registered themselves.
    Meta,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 4] = [Self::Connection, Self::Flow, Self::ConnectSession, Self::Meta];

    /// Its lasting name: part of every sealed record's associated data, so it never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Flow => "flow",
            Self::ConnectSession => "connect_session",
            Self::Meta => "meta",
        }
    }
}

/// A record's key within its table. Keys sort by their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey(pub Vec<u8>);

impl fmt::Display for RecordKey {
    /// Fit for logs: names with `/` between them, or the first eight characters of a hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) => f.write_str(&text.replace(char::is_control, "/")),
            Err(_) => f.write_str(&URL_SAFE_NO_PAD.encode(self.0.get(..6).unwrap_or(&self.0))),
        }
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({self})")
    }
}

/// Names one write of one record. It grows with every write of the record, and no number is ever
/// used twice, not after a removal or a restart, so that an old revision never matches by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The number itself.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

/// A stored value and its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its revision.
    pub revision: Revision,
    /// Its sealed bytes.
    pub value: Vec<u8>,
}

/// What must be true of a record for a write to happen (compare-and-swap).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Anything,
    /// Nothing is there.
    Absent,
    /// Just this revision is there.
    Revision(Revision),
}

impl Expected {
    /// Whether it is true of a record found at `found`.
    pub fn holds(self, found: Option<Revision>) -> bool {
        match self {
            Self::Anything => true,
            Self::Absent => found.is_none(),
            Self::Revision(revision) => found == Some(revision),
        }
    }
}

/// One change. Changes of one commit are independent: one that conflicts leaves the others be.
#[derive(Clone, Debug)]
pub struct Write {
    /// The table.
    pub table: Table,
    /// The key.
    pub key: RecordKey,
    /// The new sealed bytes, or `None` to remove the record.
    pub value: Option<Vec<u8>>,
    /// What must be true.
    pub expected: Expected,
}

/// What became of one [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Done and durable; the new revision (of a removal: the one removed, and zero, which no
    /// record ever has, if nothing was there).
    Written(Revision),
    /// What was expected did not hold; the revision found, if any.
    Conflict(Option<Revision>),
}

/// Why the store did not do as asked.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The backend cannot be opened. Start-up only.
    #[error("cannot open the token store at {location}: {cause}")]
    Open {
        /// Path or host of the store.
        location: String,
        /// What happened, and what to do.
        cause: String,
    },
    /// A write or read failed; trying again may help. A write that failed so may have been made
    /// all the same: who tries again and meets a conflict must read and compare.
    #[error("the token store failed: {0}")]
    Unavailable(String),
    /// A record cannot be opened or read.
    #[error("record {key} of table {name} is damaged or was moved: {cause}", name = .table.name())]
    Damaged {
        /// The table.
        table: Table,
        /// The key, printable.
        key: String,
        /// What is wrong.
        cause: String,
    },
    /// The encryption keys do not fit the store. Start-up only.
    #[error("{0}")]
    Keys(String),
    /// Another writer was faster.
    #[error("record {key} was changed by another writer")]
    Conflict {
        /// The key, printable.
        key: String,
    },
}

/// Where a scan begins: at `prefix`, or just behind `after` if that is further.
fn scan_start(prefix: Vec<u8>, after: Option<RecordKey>) -> Bound<Vec<u8>> {
    match after {
        Some(RecordKey(key)) if key >= prefix => Bound::Excluded(key),
        _ => Bound::Included(prefix),
    }
}

/// A backend. Every answer to [`TokenStore::commit`] means durable, and nothing is ever read that
/// is not durable yet.
pub trait TokenStore: Send + Sync + fmt::Debug {
    /// The backend's name, as in [`BACKENDS`].
    fn name(&self) -> &'static str;

    /// Reads one record.
    fn load(&self, table: Table, key: RecordKey) -> BoxFuture<'static, Result<Option<Record>, StoreError>>;

    /// Reads up to `limit` records whose keys start with `prefix` and come after `after`, in order.
    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<RecordKey>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<(RecordKey, Record)>, StoreError>>;

    /// Makes `writes`, in order, and returns once they are durable: one outcome each.
    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'static, Result<Vec<WriteOutcome>, StoreError>>;

    /// Whether this process is the only one that can write, so that marks left by another are dead.
    fn is_exclusive(&self) -> bool;
}
