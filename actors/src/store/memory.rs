//! A backend in memory, for tests and the simulation: deterministic, with faults on demand.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::{Record, RecordKey, Revision, StoreError, Table, TokenStore, Write, WriteOutcome, scan_start};

/// Faults to come, shared with the test that plans them. Without any, every commit is durable at
/// once.
#[derive(Clone, Debug, Default)]
pub struct MemoryFaults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    fail_commits: u32,
    lose_answers: u32,
    fail_reads: u32,
    delay: Duration,
    /// Grows with every crash; a commit lands only in the life it was begun in.
    life: u64,
    commits: u64,
}

impl MemoryFaults {
    /// The next `n` commits fail and change nothing.
    pub fn fail_next_commits(&self, n: u32) {
        self.0.lock().fail_commits = n;
    }

    /// The next `n` commits are made, and their callers are told that they failed.
    pub fn lose_next_answers(&self, n: u32) {
        self.0.lock().lose_answers = n;
    }

    /// The next `n` loads and scans fail.
    pub fn fail_next_reads(&self, n: u32) {
        self.0.lock().fail_reads = n;
    }

    /// From now on a commit is durable, visible and answered only after `delay` of tokio's time.
    pub fn delay_commits(&self, delay: Duration) {
        self.0.lock().delay = delay;
    }

    /// Drops every commit that is not durable yet, as the end of the process would; what was
    /// answered stays. The store serves on, as if opened again.
    pub fn crash(&self) {
        let mut plan = self.0.lock();
        plan.life = plan.life.wrapping_add(1);
    }

    /// Commits made so far.
    pub fn commits(&self) -> u64 {
        self.0.lock().commits
    }

    fn read(&self) -> Result<(), StoreError> {
        let mut plan = self.0.lock();
        if take_one(&mut plan.fail_reads) {
            return Err(StoreError::Unavailable("a planned failure of a read".into()));
        }
        Ok(())
    }
}

fn take_one(count: &mut u32) -> bool {
    let planned = *count > 0;
    *count = count.saturating_sub(1);
    planned
}

/// A store whose durable part is a map.
#[derive(Debug, Default)]
pub struct MemoryStore {
    faults: MemoryFaults,
    durable: Arc<Mutex<Durable>>,
    shared: bool,
}

#[derive(Debug, Default)]
struct Durable {
    records: BTreeMap<(Table, Vec<u8>), Record>,
    last_revision: u64,
}

impl Durable {
    fn apply(&mut self, write: Write) -> WriteOutcome {
        let place = (write.table, write.key.0);
        let found = self.records.get(&place).map(|record| record.revision);
        if !write.expected.holds(found) {
            return WriteOutcome::Conflict(found);
        }
        match write.value {
            Some(value) => {
                self.last_revision = self.last_revision.saturating_add(1);
                let revision = Revision(self.last_revision);
                self.records.insert(place, Record { revision, value });
                WriteOutcome::Written(revision)
            }
            None => {
                self.records.remove(&place);
                WriteOutcome::Written(found.unwrap_or(Revision(0)))
            }
        }
    }
}

impl MemoryStore {
    /// An empty store with these faults.
    pub fn new(faults: MemoryFaults) -> Self {
        Self { faults, durable: Arc::default(), shared: false }
    }

    /// As [`MemoryStore::new`], for several engines at once.
    pub fn shared(faults: MemoryFaults) -> Self {
        Self { shared: true, ..Self::new(faults) }
    }
}

impl TokenStore for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn load(&self, table: Table, key: RecordKey) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        let (faults, durable) = (self.faults.clone(), self.durable.clone());
        Box::pin(async move {
            faults.read()?;
            Ok(durable.lock().records.get(&(table, key.0)).cloned())
        })
    }

    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<RecordKey>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<(RecordKey, Record)>, StoreError>> {
        let (faults, durable) = (self.faults.clone(), self.durable.clone());
        Box::pin(async move {
            faults.read()?;
            let start = scan_start(prefix.clone(), after).map(|key| (table, key));
            Ok(durable
                .lock()
                .records
                .range((start, Bound::Unbounded))
                .take_while(|((of, key), _)| *of == table && key.starts_with(&prefix))
                .take(limit)
                .map(|((_, key), record)| (RecordKey(key.clone()), record.clone()))
                .collect())
        })
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'static, Result<Vec<WriteOutcome>, StoreError>> {
        let (faults, durable) = (self.faults.clone(), self.durable.clone());
        let (life, delay) = {
            let plan = faults.0.lock();
            (plan.life, plan.delay)
        };
        Box::pin(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let mut plan = faults.0.lock();
            if plan.life != life {
                return Err(StoreError::Unavailable(
                    "the process ended before the commit was durable".into(),
                ));
            }
            if take_one(&mut plan.fail_commits) {
                return Err(StoreError::Unavailable("a planned failure of a commit".into()));
            }
            plan.commits = plan.commits.saturating_add(1);
            let mut durable = durable.lock();
            let outcomes = writes.into_iter().map(|write| durable.apply(write)).collect();
            if take_one(&mut plan.lose_answers) {
                return Err(StoreError::Unavailable("a planned loss of a commit's answer".into()));
            }
            Ok(outcomes)
        })
    }

    fn is_exclusive(&self) -> bool {
        !self.shared
    }
}
