//! The embedded backend: sled 0.34 in a directory of its own.
//!
//! One thread owns the database and takes requests from a bounded channel; what has gathered while
//! it flushed is its next batch, so that concurrent commits share one flush. Reads go the same way,
//! for three reasons: a read never sees what is not durable yet, compare-and-swap needs no lock, and
//! the database can be closed and opened anew after a failure with nobody holding on to it. They
//! are rare, since published connections are read from memory.
//!
//! The flush is a blocking one: `flush_async` is known to lock up.

use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::sled_files::{DiskSync, StoreDirectory};
use super::{
    Record, RecordKey, Revision, StoreError, StoreOpener, Table, TokenStore, Write, WriteOutcome, scan_start,
};
use crate::registration::settings::{Settings, SettingsError};

/// Requests that may wait for the thread; further ones are refused as busy.
const MAX_REQUESTS: usize = 1024;
/// Requests taken at a time.
const MAX_BATCH: usize = 256;
/// Memory for sled's page cache, in bytes.
const CACHE_CAPACITY: u64 = 64 * 1024 * 1024;
/// Revisions reserved at a time: a reservation costs a flush, and a restart skips what is left.
const REVISION_BLOCK: u64 = 65_536;
/// Bytes of the revision before each value.
const REVISION_LENGTH: usize = 8;
/// A tree of our own, beside one for each table.
const INTERNAL_TREE: &str = "claviger_internal";
const RESERVED_KEY: &str = "reserved_revision";

/// Takes `path` from the settings.
pub(super) fn build(settings: &mut Settings) -> Result<StoreOpener, SettingsError> {
    let path = match settings.take_value("path")? {
        None => return Err(SettingsError::missing("path", "the sled backend")),
        Some(serde_json::Value::String(path)) if !path.is_empty() && !path.contains('\0') => path,
        Some(_) => {
            let problem = "must be the path of a directory, such as \"data/tokens\"".to_owned();
            return Err(SettingsError { key: "path".into(), problem });
        }
    };
    Ok(Box::new(move || Ok(Arc::new(SledStore::open(Path::new(&path))?) as Arc<dyn TokenStore>)))
}

/// A store in a directory on this machine, for one process at a time.
///
/// Dropping it finishes what was asked, closes the database and gives the directory free.
#[derive(Debug)]
pub struct SledStore {
    path: PathBuf,
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    #[cfg(test)]
    pub(super) fail_flush: Arc<std::sync::atomic::AtomicBool>,
}

impl SledStore {
    /// Opens the store in `path`, or makes a new one: directory 0700, files 0600.
    ///
    /// [`StoreError::Open`] says whether it cannot be written, is open elsewhere, or is damaged.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::open(path)?;
        #[cfg(test)]
        let fail_flush = database.fail_flush.clone();
        let (requests, waiting) = mpsc::channel(MAX_REQUESTS);
        let owner = Owner { path: path.to_owned(), database: Some(database) };
        let thread = std::thread::Builder::new()
            .name("token-store".into())
            .spawn(move || owner.run(waiting))
            .map_err(|error| open_error(path, format!("its thread cannot be started: {error}")))?;
        Ok(Self {
            path: path.to_owned(),
            requests: Some(requests),
            thread: Some(thread),
            #[cfg(test)]
            fail_flush,
        })
    }

    /// Hands a request to the thread at once; the future only waits for the answer.
    fn request<T: Send + 'static>(
        &self,
        request: impl FnOnce(Answer<T>) -> Request,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.as_ref().map(|requests| requests.try_send(request(answer)));
        Box::pin(async move {
            match sent {
                Some(Ok(())) => answered.await.unwrap_or_else(|_| {
                    Err(StoreError::Unavailable("the database failed while it was at it".into()))
                }),
                Some(Err(mpsc::error::TrySendError::Full(_))) => {
                    Err(StoreError::Unavailable("the database is busy: too many requests wait for it".into()))
                }
                _ => Err(StoreError::Unavailable("the database's thread has ended".into())),
            }
        })
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.requests = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(path = %self.path.display(), "the token store's thread panicked");
        }
    }
}

impl TokenStore for SledStore {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn load(&self, table: Table, key: RecordKey) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.request(|answer| Request::Load { table, key, answer })
    }

    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<RecordKey>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<(RecordKey, Record)>, StoreError>> {
        self.request(|answer| Request::Scan { table, prefix, after, limit, answer })
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'static, Result<Vec<WriteOutcome>, StoreError>> {
        self.request(|answer| Request::Commit { writes, answer })
    }

    fn is_exclusive(&self) -> bool {
        true
    }
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

enum Request {
    Load {
        table: Table,
        key: RecordKey,
        answer: Answer<Option<Record>>,
    },
    Scan {
        table: Table,
        prefix: Vec<u8>,
        after: Option<RecordKey>,
        limit: usize,
        answer: Answer<Vec<(RecordKey, Record)>>,
    },
    Commit {
        writes: Vec<Write>,
        answer: Answer<Vec<WriteOutcome>>,
    },
}

/// What the thread runs.
struct Owner {
    path: PathBuf,
    /// `None` after a failure: opened anew for the next batch.
    database: Option<Database>,
}

impl Owner {
    fn run(mut self, mut waiting: mpsc::Receiver<Request>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH {
                let Ok(next) = waiting.try_recv() else { break };
                batch.push(next);
            }
            // sled panics where it meets what it did not expect; its waiters then see their
            // answers dropped.
            let served = catch_unwind(AssertUnwindSafe(|| self.serve(batch)));
            if !matches!(served, Ok(Ok(()))) {
                tracing::error!(path = %self.path.display(), "the token store failed and will be opened anew");
                // The failed database may panic once more while it closes.
                let failed = self.database.take();
                let _ = catch_unwind(AssertUnwindSafe(|| failed.map(Database::close)));
            }
        }
        let _ = catch_unwind(AssertUnwindSafe(|| self.database.take().map(Database::close)));
    }

    fn serve(&mut self, batch: Vec<Request>) -> Result<(), Failed> {
        let database = match &mut self.database {
            Some(database) => database,
            none => match Database::open(&self.path) {
                Ok(database) => none.insert(database),
                Err(error) => {
                    refuse(batch, &StoreError::Unavailable(error.to_string()));
                    return Ok(());
                }
            },
        };
        database.serve(batch)
    }
}

/// The database can no longer be relied on. Whoever waited has been told.
struct Failed;

fn refuse(batch: Vec<Request>, error: &StoreError) {
    for request in batch {
        match request {
            Request::Load { answer, .. } => drop(answer.send(Err(error.clone()))),
            Request::Scan { answer, .. } => drop(answer.send(Err(error.clone()))),
            Request::Commit { answer, .. } => drop(answer.send(Err(error.clone()))),
        }
    }
}

struct Database {
    directory: StoreDirectory,
    db: sled::Db,
    trees: [sled::Tree; Table::ALL.len()],
    internal: sled::Tree,
    disk: DiskSync,
    /// The last revision given.
    last_revision: u64,
    /// Revisions up to this one may be given; a restart goes on behind it.
    reserved: u64,
    #[cfg(test)]
    fail_flush: Arc<std::sync::atomic::AtomicBool>,
}

impl Database {
    fn open(path: &Path) -> Result<Self, StoreError> {
        // A damaged database makes sled panic in places.
        catch_unwind(|| Self::try_open(path))
            .unwrap_or_else(|_| Err(damaged(path, "sled gave up on reading it")))
    }

    fn try_open(path: &Path) -> Result<Self, StoreError> {
        let failed = |error: sled::Error| explain(path, error);
        let io_failed = |error: io::Error| explain(path, error.into());
        let directory = StoreDirectory::prepare(path).map_err(io_failed)?;
        let db = sled::Config::new()
            .path(directory.path())
            .cache_capacity(CACHE_CAPACITY)
            .flush_every_ms(None)
            .open()
            .map_err(failed)?;
        directory.tighten().map_err(io_failed)?;
        let [connection, flow, session, meta] = Table::ALL.map(|table| db.open_tree(table.name()));
        let trees = [
            connection.map_err(failed)?,
            flow.map_err(failed)?,
            session.map_err(failed)?,
            meta.map_err(failed)?,
        ];
        let internal = db.open_tree(INTERNAL_TREE).map_err(failed)?;
        let reserved = match internal.get(RESERVED_KEY).map_err(failed)? {
            None => None,
            Some(bytes) => Some(
                <[u8; 8]>::try_from(&*bytes)
                    .map(u64::from_be_bytes)
                    .map_err(|_| damaged(path, "its revision counter is unreadable"))?,
            ),
        };
        // The mark is always written after the database, so it is never ahead, unless the database
        // lost what it had: sled takes a cut data file for a new or an older one.
        if directory.read_mark().map_err(io_failed)? > reserved {
            return Err(damaged(path, "it has lost records that it had"));
        }
        let disk = DiskSync::new(&directory).map_err(io_failed)?;
        let reserved = reserved.unwrap_or(0);
        let mut database = Self {
            directory,
            db,
            trees,
            internal,
            disk,
            last_revision: reserved,
            reserved,
            #[cfg(test)]
            fail_flush: Arc::default(),
        };
        database.reserve().map_err(failed)?;
        database.directory.tighten().map_err(io_failed)?;
        Ok(database)
    }

    fn close(self) {
        let Self { directory, db, trees, internal, disk, .. } = self;
        if let Err(error) = db.flush() {
            tracing::error!(%error, "the token store could not be flushed while it was closed");
        }
        // The last of these gives the lock free.
        drop((disk, internal, trees, db));
        directory.await_unlocked();
        if let Err(error) = directory.tighten() {
            tracing::warn!(%error, "the token store's files could not be left to their owner alone");
        }
    }

    /// Reads are answered from what was durable before the batch; commits once all of it is.
    fn serve(&mut self, batch: Vec<Request>) -> Result<(), Failed> {
        let mut commits = Vec::new();
        let mut failed = false;
        for request in batch {
            match request {
                Request::Load { table, key, answer } => {
                    let read = self.load(table, &key);
                    failed |= matches!(read, Err(StoreError::Unavailable(_)));
                    let _ = answer.send(read);
                }
                Request::Scan { table, prefix, after, limit, answer } => {
                    let read = self.scan(table, prefix, after, limit);
                    failed |= matches!(read, Err(StoreError::Unavailable(_)));
                    let _ = answer.send(read);
                }
                Request::Commit { writes, answer } => commits.push((writes, answer)),
            }
        }
        if !commits.is_empty() {
            failed |= self.commit(commits).is_err();
        }
        if failed { Err(Failed) } else { Ok(()) }
    }

    fn commit(&mut self, commits: Vec<(Vec<Write>, Answer<Vec<WriteOutcome>>)>) -> Result<(), Failed> {
        let (writes, answers): (Vec<_>, Vec<_>) = commits.into_iter().unzip();
        let outcomes: Result<Vec<_>, sled::Error> = writes
            .into_iter()
            .map(|writes| writes.into_iter().map(|write| self.apply(write)).collect())
            .collect();
        match outcomes.and_then(|outcomes: Vec<Vec<WriteOutcome>>| self.flush().map(|()| outcomes)) {
            Ok(outcomes) => {
                for (answer, outcomes) in answers.into_iter().zip(outcomes) {
                    let _ = answer.send(Ok(outcomes));
                }
                Ok(())
            }
            Err(error) => {
                let error = StoreError::Unavailable(format!("what was written is not durable: {error}"));
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
                Err(Failed)
            }
        }
    }

    fn apply(&mut self, write: Write) -> sled::Result<WriteOutcome> {
        let tree = self.tree(write.table).clone();
        let found = tree.get(&write.key.0)?.map(|value| record(&value).revision);
        if !write.expected.holds(found) {
            return Ok(WriteOutcome::Conflict(found));
        }
        match write.value {
            Some(value) => {
                let revision = self.next_revision()?;
                tree.insert(write.key.0, [&revision.0.to_be_bytes(), value.as_slice()].concat())?;
                Ok(WriteOutcome::Written(revision))
            }
            None => {
                tree.remove(write.key.0)?;
                Ok(WriteOutcome::Written(found.unwrap_or(Revision(0))))
            }
        }
    }

    fn next_revision(&mut self) -> sled::Result<Revision> {
        if self.last_revision >= self.reserved {
            self.reserve()?;
        }
        self.last_revision = self.last_revision.saturating_add(1);
        Ok(Revision(self.last_revision))
    }

    /// Makes the next block of revisions ours before the first of it is given.
    fn reserve(&mut self) -> sled::Result<()> {
        let reserved = self.reserved.saturating_add(REVISION_BLOCK);
        self.internal.insert(RESERVED_KEY, &reserved.to_be_bytes())?;
        self.flush()?;
        self.directory.write_mark(reserved)?;
        self.reserved = reserved;
        Ok(())
    }

    fn flush(&mut self) -> sled::Result<()> {
        #[cfg(test)]
        if self.fail_flush.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::from(ErrorKind::StorageFull).into());
        }
        self.db.flush()?;
        self.disk.run()?;
        Ok(())
    }

    fn load(&self, table: Table, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        let value = self.tree(table).get(&key.0).map_err(|error| unreadable(&error))?;
        Ok(value.map(|value| record(&value)))
    }

    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<RecordKey>,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Record)>, StoreError> {
        let range = (scan_start(prefix.clone(), after), Bound::Unbounded);
        let mut found = Vec::new();
        for entry in self.tree(table).range(range).take(limit) {
            let (key, value) = entry.map_err(|error| unreadable(&error))?;
            if !key.starts_with(&prefix) {
                break;
            }
            found.push((RecordKey(key.to_vec()), record(&value)));
        }
        Ok(found)
    }

    fn tree(&self, table: Table) -> &sled::Tree {
        let [connection, flow, session, meta] = &self.trees;
        match table {
            Table::Connection => connection,
            Table::Flow => flow,
            Table::ConnectSession => session,
            Table::Meta => meta,
        }
    }
}

/// A value too short to have a revision was not written by us; it is passed on with the revision
/// that no record has, and will not open.
fn record(value: &[u8]) -> Record {
    match value.split_first_chunk::<REVISION_LENGTH>() {
        Some((revision, bytes)) => {
            Record { revision: Revision(u64::from_be_bytes(*revision)), value: bytes.to_vec() }
        }
        None => Record { revision: Revision(0), value: value.to_vec() },
    }
}

fn unreadable(error: &sled::Error) -> StoreError {
    StoreError::Unavailable(format!("the database cannot be read: {error}"))
}

fn open_error(path: &Path, cause: String) -> StoreError {
    StoreError::Open { location: path.display().to_string(), cause }
}

fn damaged(path: &Path, how: &str) -> StoreError {
    open_error(
        path,
        format!(
            "the database is damaged: {how}. Restore the directory from a backup; or move it away, and start \
             with no connections: every person must consent again"
        ),
    )
}

fn explain(path: &Path, error: sled::Error) -> StoreError {
    match error {
        // sled has no error kind of its own for a lock that is held.
        sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock") => open_error(
            path,
            "another process has this store open; stop it first, or give this one a store of its own".into(),
        ),
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
