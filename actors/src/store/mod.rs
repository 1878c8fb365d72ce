//! The durable home of connections and pending flows.
//!
//! A backend keeps opaque, sealed values under ordered keys, with a revision each; it knows
//! nothing of tokens. To add one: a new file here, one `mod` line and one row in [`BACKENDS`].

use std::fmt;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What kind of record it is; each kind has a key space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Token sets, by profile and subject.
    Connection,
    /// Pending authorizations, by the hash of their `state`.
    Flow,
    /// One-time connect links, by the hash of their token.
    ConnectSession,
    /// Key checks and the like.
    Meta,
}

/// A record's key within its table. Keys sort by their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey(pub Vec<u8>);

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

/// How often a record was written; grows with every write, and starts anew after a removal from
/// a number that was never used before, so that an old revision never matches by chance.
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
    /// Done and durable; the new revision (of a removal: the one removed).
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
    /// A write or read failed; trying again may help.
    #[error("the token store failed: {0}")]
    Unavailable(String),
    /// A record cannot be opened or read.
    #[error("record {key} of table {table:?} is damaged or was moved: {cause}")]
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

/// A backend. Every answer to [`TokenStore::commit`] means durable.
pub trait TokenStore: Send + Sync + fmt::Debug {
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
