//! What the actor does for each message, on its own thread and never blocking it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::timeout;

use super::group_commit::{GroupCommit, Progress};
use super::messages::{
    ConnectionPage, ListConnections, LoadConnection, LoadFlow, LoadFlows, LoadSigningKeys, PurgeExpired,
    RemoveConnection, SaveConnectSession, SaveConnection, SaveFlow, SaveSigningKeys, StoredConnection,
    TakeConnectSession, TakeFlow,
};
use super::records::{
    connection_id, connection_key, hash_key, open, open_connection, profile_prefix, seal, seal_connection,
    signing_keys_key,
};
use crate::clock::{Clock, Timestamp};
use crate::flow::record::{ConnectSession, FlowRecord};
use crate::registration::signing_keys::ManagedKeyRecord;
use crate::store::sealed::Vault;
use crate::store::{
    Expected, Record, RecordKey, Revision, StoreError, Table, TokenStore, Write, WriteOutcome,
};
use crate::supervision::Observation;

/// One read of the backend.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// A whole listing, all of its reads together.
const LIST_DEADLINE: Duration = Duration::from_secs(10);
/// A whole purge.
const PURGE_DEADLINE: Duration = Duration::from_secs(60);
/// Reads that may be under way; further ones are refused as busy.
const MAX_READS: usize = 512;
/// Records read at a time.
pub(super) const SCAN_PAGE: usize = 256;
/// Longest page of a listing.
const MAX_PAGE: usize = 1000;

/// The store, the keys and the writes under way.
pub(super) struct Operations {
    store: Arc<dyn TokenStore>,
    vault: Arc<Vault>,
    commits: Rc<GroupCommit>,
    reads: Cell<usize>,
    damaged: Cell<u64>,
    last_read_error: RefCell<Option<String>>,
}

impl Operations {
    pub(super) fn new(store: Arc<dyn TokenStore>, vault: Arc<Vault>, clock: Arc<dyn Clock>) -> Self {
        let commits = GroupCommit::new(store.clone(), clock);
        Self {
            store,
            vault,
            commits,
            reads: Cell::new(0),
            damaged: Cell::new(0),
            last_read_error: RefCell::default(),
        }
    }

    pub(super) async fn load_connection(
        &self,
        LoadConnection(id): LoadConnection,
    ) -> Result<Option<StoredConnection>, StoreError> {
        let key = connection_key(&id);
        let Some(Record { revision, value }) = self.load(Table::Connection, &key).await? else {
            return Ok(None);
        };
        let record = self.note_damage(open_connection(&self.vault, &key, &value))?;
        Ok(Some(StoredConnection { id, revision, record }))
    }

    pub(super) async fn save_connection(&self, message: SaveConnection) -> Result<Revision, StoreError> {
        let key = connection_key(&message.id);
        let value = seal_connection(&self.vault, &key, &message.record)?;
        self.save(Table::Connection, key, value, message.expected).await
    }

    pub(super) async fn remove_connection(&self, message: RemoveConnection) -> Result<(), StoreError> {
        let key = connection_key(&message.id);
        let name = key.to_string();
        match self.remove(Table::Connection, key, message.expected).await? {
            WriteOutcome::Written(_) | WriteOutcome::Conflict(None) => Ok(()),
            WriteOutcome::Conflict(Some(_)) => Err(StoreError::Conflict { key: name }),
        }
    }

    pub(super) async fn list_connections(
        &self,
        message: ListConnections,
    ) -> Result<ConnectionPage, StoreError> {
        within(LIST_DEADLINE, "a listing of connections", self.list(message)).await
    }

    async fn list(&self, message: ListConnections) -> Result<ConnectionPage, StoreError> {
        let ListConnections { profile, subject, after, limit } = message;
        let limit = limit.clamp(1, MAX_PAGE);
        let mut page = ConnectionPage { connections: Vec::new(), next: None, damaged: 0 };
        let mut scan = Scan {
            table: Table::Connection,
            prefix: profile.as_ref().map(profile_prefix).unwrap_or_default(),
            after: after.as_ref().map(connection_key),
            // One more than asked tells whether there is a next page.
            page: if subject.is_none() { SCAN_PAGE.min(limit.saturating_add(1)) } else { SCAN_PAGE },
            done: false,
        };
        while let Some(records) = scan.next(self).await? {
            for (key, Record { revision, value }) in records {
                let id = connection_id(&key);
                if subject.is_some() && id.as_ref().map(|id| &id.subject) != subject.as_ref() {
                    continue;
                }
                if page.connections.len() == limit {
                    page.next = page.connections.last().map(|last| last.id.clone());
                    return Ok(page);
                }
                let opened = self.note_damage(open_connection(&self.vault, &key, &value));
                match (id, opened) {
                    (Some(id), Ok(record)) => {
                        page.connections.push(StoredConnection { id, revision, record })
                    }
                    _ => page.damaged = page.damaged.saturating_add(1),
                }
            }
        }
        Ok(page)
    }

    pub(super) async fn save_flow(&self, SaveFlow(flow): SaveFlow) -> Result<(), StoreError> {
        let key = hash_key(&flow.state);
        let value = seal(&self.vault, Table::Flow, &key, &flow)?;
        self.save(Table::Flow, key, value, Expected::Anything).await.map(drop)
    }

    pub(super) async fn load_flow(
        &self,
        LoadFlow(state): LoadFlow,
    ) -> Result<Option<FlowRecord>, StoreError> {
        self.load_sealed(Table::Flow, &hash_key(&state)).await.map(|found| found.map(|(_, flow)| flow))
    }

    pub(super) async fn take_flow(&self, TakeFlow(state): TakeFlow) -> Result<bool, StoreError> {
        let key = hash_key(&state);
        match self.load(Table::Flow, &key).await? {
            Some(record) => self.take(Table::Flow, key, record.revision).await,
            None => Ok(false),
        }
    }

    pub(super) async fn load_flows(
        &self,
        LoadFlows { limit }: LoadFlows,
    ) -> Result<Vec<FlowRecord>, StoreError> {
        within(LIST_DEADLINE, "a listing of flows", async {
            let mut flows = Vec::new();
            let mut scan = Scan::of(Table::Flow);
            while let Some(records) = scan.next(self).await? {
                for (key, record) in records {
                    if flows.len() >= limit {
                        return Ok(flows);
                    }
                    flows.extend(self.note_damage(open(&self.vault, Table::Flow, &key, &record.value)).ok());
                }
            }
            Ok(flows)
        })
        .await
    }

    pub(super) async fn save_connect_session(
        &self,
        SaveConnectSession(session): SaveConnectSession,
    ) -> Result<(), StoreError> {
        let key = hash_key(&session.token);
        let value = seal(&self.vault, Table::ConnectSession, &key, &session)?;
        self.save(Table::ConnectSession, key, value, Expected::Anything).await.map(drop)
    }

    pub(super) async fn take_connect_session(
        &self,
        TakeConnectSession(token): TakeConnectSession,
    ) -> Result<Option<ConnectSession>, StoreError> {
        let key = hash_key(&token);
        let Some((revision, session)) = self.load_sealed(Table::ConnectSession, &key).await? else {
            return Ok(None);
        };
        Ok(self.take(Table::ConnectSession, key, revision).await?.then_some(session))
    }

    pub(super) async fn load_signing_keys(
        &self,
        LoadSigningKeys(profile): LoadSigningKeys,
    ) -> Result<Option<(Revision, ManagedKeyRecord)>, StoreError> {
        self.load_sealed(Table::Meta, &signing_keys_key(&profile)).await
    }

    pub(super) async fn save_signing_keys(&self, message: SaveSigningKeys) -> Result<(), StoreError> {
        let key = signing_keys_key(&message.profile);
        let value = seal(&self.vault, Table::Meta, &key, &message.record)?;
        self.save(Table::Meta, key, value, message.expected).await.map(drop)
    }

    pub(super) async fn purge_expired(
        &self,
        PurgeExpired { now }: PurgeExpired,
    ) -> Result<usize, StoreError> {
        within(PURGE_DEADLINE, "a purge", async {
            let flows = self.purge(Table::Flow, now, |flow: &FlowRecord| flow.expires_at).await?;
            let sessions =
                self.purge(Table::ConnectSession, now, |session: &ConnectSession| session.expires_at).await?;
            Ok(flows.saturating_add(sessions))
        })
        .await
    }

    async fn purge<T: DeserializeOwned>(
        &self,
        table: Table,
        now: Timestamp,
        expires_at: impl Fn(&T) -> Timestamp,
    ) -> Result<usize, StoreError> {
        let mut purged = 0usize;
        let mut scan = Scan::of(table);
        while let Some(records) = scan.next(self).await? {
            // What cannot be opened stays: a key may come back.
            let expired = records.into_iter().filter(|(key, record)| {
                open(&self.vault, table, key, &record.value).is_ok_and(|record| expires_at(&record) <= now)
            });
            let removals = expired.map(|(key, record)| self.take(table, key, record.revision));
            for taken in join_all(removals).await {
                purged = purged.saturating_add(usize::from(taken?));
            }
        }
        Ok(purged)
    }

    /// Removes a record as it was read: of all who try, one gets `true`.
    async fn take(&self, table: Table, key: RecordKey, revision: Revision) -> Result<bool, StoreError> {
        let outcome = self.remove(table, key, Expected::Revision(revision)).await?;
        Ok(matches!(outcome, WriteOutcome::Written(_)))
    }

    async fn remove(
        &self,
        table: Table,
        key: RecordKey,
        expected: Expected,
    ) -> Result<WriteOutcome, StoreError> {
        self.commits.write(Write { table, key, value: None, expected }).await
    }

    async fn save(
        &self,
        table: Table,
        key: RecordKey,
        value: Vec<u8>,
        expected: Expected,
    ) -> Result<Revision, StoreError> {
        let name = key.to_string();
        match self.commits.write(Write { table, key, value: Some(value), expected }).await? {
            WriteOutcome::Written(revision) => Ok(revision),
            WriteOutcome::Conflict(_) => Err(StoreError::Conflict { key: name }),
        }
    }

    async fn load_sealed<T: DeserializeOwned>(
        &self,
        table: Table,
        key: &RecordKey,
    ) -> Result<Option<(Revision, T)>, StoreError> {
        let Some(Record { revision, value }) = self.load(table, key).await? else { return Ok(None) };
        let record = self.note_damage(open(&self.vault, table, key, &value))?;
        Ok(Some((revision, record)))
    }

    async fn load(&self, table: Table, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.read(async { self.store.load(table, key.clone()).await }).await
    }

    /// Runs one read of the backend within its limits.
    async fn read<T>(&self, reading: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        if self.reads.get() >= MAX_READS {
            return Err(StoreError::Unavailable("the token store is busy: too many reads wait".into()));
        }
        let _under_way = Counted::new(&self.reads);
        let read = within(READ_DEADLINE, "a read", reading).await;
        if let Err(error) = &read {
            tracing::error!(%error, "a read of the token store failed");
            *self.last_read_error.borrow_mut() = Some(error.to_string());
        }
        read
    }

    fn note_damage<T>(&self, opened: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &opened {
            tracing::error!(%error, "a stored record is left aside");
            self.damaged.set(self.damaged.get().saturating_add(1));
            *self.last_read_error.borrow_mut() = Some(error.to_string());
        }
        opened
    }

    pub(super) fn observe(&self) -> Observation {
        let statistics = self.commits.statistics();
        let state = match self.commits.progress() {
            Progress::Idle => "idle",
            Progress::Committing => "committing",
            Progress::Failing => "failing",
        };
        Observation {
            state: state.into(),
            last_error: self.commits.last_error().or_else(|| self.last_read_error.borrow().clone()),
            detail: json!({
                "backend": self.store.name(),
                "pending": self.commits.waiting(),
                "reads": self.reads.get(),
                "damaged": self.damaged.get(),
                "commits": statistics.commits,
                "writes": statistics.writes,
                "conflicts": statistics.conflicts,
                "failed_commits": statistics.failed_commits,
                "batch_max": statistics.batch_max,
                "last_commit_ms": statistics.last_commit_ms,
            }),
        }
    }
}

/// A walk through a table, page by page.
struct Scan {
    table: Table,
    prefix: Vec<u8>,
    after: Option<RecordKey>,
    page: usize,
    done: bool,
}

impl Scan {
    fn of(table: Table) -> Self {
        Self { table, prefix: Vec::new(), after: None, page: SCAN_PAGE, done: false }
    }

    async fn next(
        &mut self,
        operations: &Operations,
    ) -> Result<Option<Vec<(RecordKey, Record)>>, StoreError> {
        if self.done {
            return Ok(None);
        }
        let after = self.after.take();
        let scan = operations.store.scan(self.table, self.prefix.clone(), after, self.page);
        let records = operations.read(scan).await?;
        self.done = records.len() < self.page;
        self.after = records.last().map(|(key, _)| key.clone());
        Ok(Some(records))
    }
}

/// One more while it lives.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get().saturating_add(1));
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

async fn within<T>(
    deadline: Duration,
    what: &str,
    future: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(deadline, future).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(format!("{what} took longer than {} seconds", deadline.as_secs())))
    })
}
