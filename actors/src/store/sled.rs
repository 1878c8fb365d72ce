//! The embedded backend: sled 0.34 in a directory of its own.
//!
//! One thread owns the database and takes requests from a bounded channel; what has gathered while
//! it flushed is its next batch, so that concurrent commits share one flush. Reads go the same way,
//! for three reasons: a read never sees what is not durable yet, compare-and-swap needs no lock, and
//! the database can be closed and opened anew after a failure with nobody holding on to it. They
//! are rare, since published connections are read from memory.
//!
//! `sled_database` has the database itself. The flush is a blocking one: `flush_async` is known to lock up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::sled_database::{Database, open_error};
use super::{Record, RecordKey, StoreError, StoreOpener, Table, TokenStore, Write, WriteOutcome};
use crate::registration::settings::{Settings, SettingsError};

/// Requests that may wait for the thread; further ones are refused as busy.
const MAX_REQUESTS: usize = 1024;
/// Requests taken at a time.
const MAX_BATCH: usize = 256;

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
        serve(database, batch)
    }
}

/// Reads are answered from what was durable before the batch; commits once all of it is.
fn serve(database: &mut Database, batch: Vec<Request>) -> Result<(), Failed> {
    let (mut commits, mut answers) = (Vec::new(), Vec::new());
    let mut failed = false;
    for request in batch {
        match request {
            Request::Load { table, key, answer } => {
                let read = database.load(table, &key).map_err(|error| unreadable(&error));
                failed |= read.is_err();
                let _ = answer.send(read);
            }
            Request::Scan { table, prefix, after, limit, answer } => {
                let read = database.scan(table, prefix, after, limit).map_err(|error| unreadable(&error));
                failed |= read.is_err();
                let _ = answer.send(read);
            }
            Request::Commit { writes, answer } => {
                commits.push(writes);
                answers.push(answer);
            }
        }
    }
    match database.commit(commits) {
        Ok(outcomes) => {
            for (answer, outcomes) in answers.into_iter().zip(outcomes) {
                let _ = answer.send(Ok(outcomes));
            }
        }
        Err(error) => {
            failed = true;
            let error = StoreError::Unavailable(format!("what was written is not durable: {error}"));
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
    if failed { Err(Failed) } else { Ok(()) }
}

fn unreadable(error: &sled::Error) -> StoreError {
    StoreError::Unavailable(format!("the database cannot be read: {error}"))
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
