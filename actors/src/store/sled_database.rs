//! The sled database itself: how records lie in it, and how a loss of them is noticed.
//!
//! sled drops what it finds damaged without a word. A ledger, written in the same atomic batch as
//! the records it counts, makes such a loss an error, and a mark beside the database tells that the
//! database as a whole is not older than it was. Opening therefore reads every record once.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::panic::catch_unwind;
use std::path::Path;
#[cfg(test)]
use std::sync::{Arc, atomic};

use super::sled_files::{DiskSync, Mark, StoreDirectory};
use super::{Record, RecordKey, Revision, StoreError, Table, Write, WriteOutcome, scan_start};

/// Memory for sled's page cache, in bytes.
const CACHE_CAPACITY: u64 = 64 * 1024 * 1024;
/// Bytes of the revision before each value.
const REVISION_LENGTH: usize = 8;
/// The one tree that holds everything: a batch is atomic within a tree.
const TREE: &str = "claviger";
/// Sorts behind the records of all tables.
const LEDGER_KEY: &[u8] = b"~ledger";
/// How far revisions jump when what is left of a damaged store is taken over: beyond any that may
/// have been given and lost.
const REVISION_JUMP: u64 = 1 << 32;

/// First byte of a table's keys; written into every store, so it never changes.
fn tag(table: Table) -> u8 {
    match table {
        Table::Connection => b'c',
        Table::Flow => b'f',
        Table::ConnectSession => b's',
        Table::Meta => b'm',
    }
}

fn tagged(table: Table, key: &[u8]) -> Vec<u8> {
    [&[tag(table)], key].concat()
}

/// What the database should hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ledger {
    /// Batches written so far.
    sequence: u64,
    /// The last revision given.
    last_revision: u64,
    /// Records held.
    records: u64,
    /// A sum over the revisions held, in no order.
    digest: u64,
}

impl Ledger {
    fn add(&mut self, revision: Revision) {
        self.records = self.records.wrapping_add(1);
        self.digest = self.digest.wrapping_add(scattered(revision));
    }

    fn subtract(&mut self, revision: Revision) {
        self.records = self.records.wrapping_sub(1);
        self.digest = self.digest.wrapping_sub(scattered(revision));
    }

    fn to_bytes(self) -> Vec<u8> {
        [self.sequence, self.last_revision, self.records, self.digest].map(u64::to_be_bytes).concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<8>() else { return None };
        let &[sequence, last_revision, records, digest] = numbers else { return None };
        let number = u64::from_be_bytes;
        Some(Self {
            sequence: number(sequence),
            last_revision: number(last_revision),
            records: number(records),
            digest: number(digest),
        })
    }
}

/// So that no few revisions add up to others: the finalizer of SplitMix64.
fn scattered(revision: Revision) -> u64 {
    let mut z = revision.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An open database. Its owner thread is the only one that knows it.
pub(super) struct Database {
    directory: StoreDirectory,
    db: sled::Db,
    tree: sled::Tree,
    disk: DiskSync,
    /// `None` until the first batch is on the disk: a mark must never be ahead.
    mark: Option<Mark>,
    ledger: Ledger,
    #[cfg(test)]
    pub(super) fail_flush: Arc<atomic::AtomicBool>,
}

impl Database {
    /// Opens the database in `path`, or makes a new one. [`StoreError::Open`] if it cannot.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let directory = StoreDirectory::prepare(path).map_err(|error| explain(path, error.into()))?;
        if directory.is_locked() {
            return Err(open_elsewhere(path));
        }
        // A damaged database makes sled panic in places.
        let opened = catch_unwind(|| Self::try_open(path, directory.clone()))
            .unwrap_or_else(|_| Err(damaged(path, "sled gave up on reading it")));
        if opened.is_err() {
            directory.await_unlocked();
        }
        opened
    }

    fn try_open(path: &Path, directory: StoreDirectory) -> Result<Self, StoreError> {
        let failed = |error: sled::Error| explain(path, error);
        let io_failed = |error: io::Error| explain(path, error.into());
        let db = sled::Config::new()
            .path(directory.path())
            .cache_capacity(CACHE_CAPACITY)
            .flush_every_ms(None)
            .open()
            .map_err(failed)?;
        directory.tighten().map_err(io_failed)?;
        let tree = db.open_tree(TREE).map_err(failed)?;
        let mark = directory.read_mark().map_err(io_failed)?;
        let ledger = audit(path, &tree, mark)?;
        let disk = DiskSync::new(&directory).map_err(io_failed)?;
        let mut database = Self {
            directory,
            db,
            tree,
            disk,
            mark: None,
            ledger,
            #[cfg(test)]
            fail_flush: Arc::default(),
        };
        // Tells at once whether the disk takes writes.
        database.write(sled::Batch::default(), ledger).map_err(failed)?;
        database.directory.tighten().map_err(io_failed)?;
        Ok(database)
    }

    /// Closes the database and returns once another may open it.
    pub(super) fn close(self) {
        let Self { directory, db, tree, disk, .. } = self;
        if let Err(error) = db.flush() {
            tracing::error!(%error, "the token store could not be flushed while it was closed");
        }
        // The last of these gives the lock free.
        drop((disk, tree, db));
        directory.await_unlocked();
        if let Err(error) = directory.tighten() {
            tracing::warn!(%error, "the token store's files could not be left to their owner alone");
        }
    }

    /// Makes the writes of several commits, in order, with one flush for all of them. After an
    /// error it is open whether they were made, all or none.
    pub(super) fn commit(&mut self, commits: Vec<Vec<Write>>) -> sled::Result<Vec<Vec<WriteOutcome>>> {
        let mut plan = Plan { ledger: self.ledger, batch: sled::Batch::default(), touched: BTreeMap::new() };
        let outcomes = commits
            .into_iter()
            .map(|writes| writes.into_iter().map(|write| plan.add(&self.tree, write)).collect())
            .collect::<sled::Result<Vec<Vec<_>>>>()?;
        if plan.ledger != self.ledger {
            self.write(plan.batch, plan.ledger)?;
        }
        Ok(outcomes)
    }

    /// Writes a batch and the ledger that counts it, and returns once both are on the disk.
    fn write(&mut self, mut batch: sled::Batch, mut ledger: Ledger) -> sled::Result<()> {
        ledger.sequence = ledger.sequence.saturating_add(1);
        batch.insert(LEDGER_KEY, ledger.to_bytes());
        self.tree.apply_batch(batch)?;
        #[cfg(test)]
        if self.fail_flush.swap(false, atomic::Ordering::SeqCst) {
            return Err(io::Error::from(ErrorKind::StorageFull).into());
        }
        self.db.flush()?;
        self.disk.run()?;
        // After the database, so that it is never ahead of a database that lost nothing.
        let mark = match self.mark.take() {
            Some(mark) => mark,
            None => self.directory.open_mark()?,
        };
        mark.write(ledger.sequence)?;
        self.mark = Some(mark);
        self.ledger = ledger;
        Ok(())
    }

    pub(super) fn load(&self, table: Table, key: &RecordKey) -> sled::Result<Option<Record>> {
        Ok(self.tree.get(tagged(table, &key.0))?.map(|value| record(&value)))
    }

    pub(super) fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<RecordKey>,
        limit: usize,
    ) -> sled::Result<Vec<(RecordKey, Record)>> {
        let prefix = tagged(table, &prefix);
        let start = scan_start(prefix.clone(), after.map(|key| RecordKey(tagged(table, &key.0))));
        let mut found = Vec::new();
        for entry in self.tree.range((start, Bound::Unbounded)).take(limit) {
            let (key, value) = entry?;
            let (true, Some((_, name))) = (key.starts_with(&prefix), key.split_first()) else { break };
            found.push((RecordKey(name.to_vec()), record(&value)));
        }
        Ok(found)
    }
}

/// A batch in the making: later writes see earlier ones.
struct Plan {
    ledger: Ledger,
    batch: sled::Batch,
    touched: BTreeMap<Vec<u8>, Option<Revision>>,
}

impl Plan {
    fn add(&mut self, tree: &sled::Tree, write: Write) -> sled::Result<WriteOutcome> {
        let key = tagged(write.table, &write.key.0);
        let found = match self.touched.get(&key) {
            Some(found) => *found,
            None => tree.get(&key)?.map(|value| split(&value).0),
        };
        if !write.expected.holds(found) {
            return Ok(WriteOutcome::Conflict(found));
        }
        if let Some(found) = found {
            self.ledger.subtract(found);
        }
        let Some(value) = write.value else {
            self.batch.remove(key.as_slice());
            self.touched.insert(key, None);
            return Ok(WriteOutcome::Written(found.unwrap_or(Revision(0))));
        };
        self.ledger.last_revision = self.ledger.last_revision.saturating_add(1);
        let revision = Revision(self.ledger.last_revision);
        self.ledger.add(revision);
        self.batch.insert(key.as_slice(), [&revision.0.to_be_bytes(), value.as_slice()].concat());
        self.touched.insert(key, Some(revision));
        Ok(WriteOutcome::Written(revision))
    }
}

/// Compares what is there with the ledger and with the mark beside the database.
///
/// Without a mark the store is new, or an operator removed it to go on with what is left.
fn audit(path: &Path, tree: &sled::Tree, mark: Option<u64>) -> Result<Ledger, StoreError> {
    let mut found = Ledger::default();
    let mut ledger = None;
    for entry in tree {
        let (key, value) = entry.map_err(|error| damaged(path, &error.to_string()))?;
        if *key == *LEDGER_KEY {
            ledger = Ledger::from_bytes(&value);
        } else {
            let (revision, _) = split(&value);
            found.add(revision);
            found.last_revision = found.last_revision.max(revision.0);
        }
    }
    let Some(mark) = mark else {
        if found.records > 0 || ledger.is_some() {
            tracing::warn!(
                records = found.records,
                "the token store had no mark; what it holds is taken over"
            );
            let known = ledger.unwrap_or_default();
            found.sequence = known.sequence;
            found.last_revision = found.last_revision.max(known.last_revision).saturating_add(REVISION_JUMP);
        }
        return Ok(found);
    };
    match ledger {
        Some(ledger) if ledger.sequence < mark => Err(damaged(path, "it is older than it was")),
        Some(ledger) if (ledger.records, ledger.digest) != (found.records, found.digest) => Err(damaged(
            path,
            &format!("of {} records it should have, {} are there", ledger.records, found.records),
        )),
        Some(ledger) => Ok(ledger),
        None => Err(damaged(path, "it has lost its records")),
    }
}

/// A value too short to have a revision was not written by us; it is passed on with the revision
/// that no record has, and will not open.
fn split(value: &[u8]) -> (Revision, &[u8]) {
    match value.split_first_chunk::<REVISION_LENGTH>() {
        Some((revision, bytes)) => (Revision(u64::from_be_bytes(*revision)), bytes),
        None => (Revision(0), value),
    }
}

fn record(value: &[u8]) -> Record {
    let (revision, bytes) = split(value);
    Record { revision, value: bytes.to_vec() }
}

pub(super) fn open_error(path: &Path, cause: String) -> StoreError {
    StoreError::Open { location: path.display().to_string(), cause }
}

fn open_elsewhere(path: &Path) -> StoreError {
    let cause = "another process has this store open; stop it first, or give this one a store of its own";
    open_error(path, cause.into())
}

fn damaged(path: &Path, how: &str) -> StoreError {
    open_error(
        path,
        format!(
            "the database is damaged: {how}. Restore the directory from a backup; or, to go on with what is \
             left, remove the file claviger-store in it, or the whole directory if that does not help: the \
             persons whose records are lost must consent again"
        ),
    )
}

fn explain(path: &Path, error: sled::Error) -> StoreError {
    match error {
        // sled has no error kind of its own for a lock that is held.
        sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock") => {
            open_elsewhere(path)
        }
        sled::Error::Io(error) => match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => open_error(
                path,
                format!("{error}; the user that runs the gateway must own the directory and may write it"),
            ),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                open_error(path, format!("{error}; make room on its disk"))
            }
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => damaged(path, &error.to_string()),
            _ => open_error(path, error.to_string()),
        },
        error => damaged(path, &error.to_string()),
    }
}
