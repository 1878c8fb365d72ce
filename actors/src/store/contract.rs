//! The suite that every backend must pass: what [`TokenStore`] promises, as checks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a check that fails is a failed test"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Expected, RecordKey, Revision, Table, TokenStore, Write, WriteOutcome};

/// Runs every check, each on a new and empty store that `make` gives.
pub async fn check_store(make: impl Fn() -> Arc<dyn TokenStore>) {
    what_is_written_is_read(&*make()).await;
    tables_are_apart(&*make()).await;
    a_write_happens_only_as_expected(&*make()).await;
    no_revision_is_used_twice(&*make()).await;
    writes_of_a_commit_are_independent_and_in_order(&*make()).await;
    scans_are_ordered_and_paged(&*make()).await;
    of_many_takers_one_wins(make()).await;
}

fn key(text: &str) -> RecordKey {
    RecordKey(text.as_bytes().to_vec())
}

fn put(name: &str, value: &str, expected: Expected) -> Write {
    Write { table: Table::Connection, key: key(name), value: Some(value.into()), expected }
}

fn remove(name: &str, expected: Expected) -> Write {
    Write { table: Table::Connection, key: key(name), value: None, expected }
}

async fn one(store: &dyn TokenStore, write: Write) -> WriteOutcome {
    let outcomes = store.commit(vec![write]).await.expect("a commit is made");
    assert_eq!(outcomes.len(), 1, "one outcome a write");
    outcomes[0]
}

fn written(outcome: WriteOutcome) -> Revision {
    match outcome {
        WriteOutcome::Written(revision) => revision,
        WriteOutcome::Conflict(found) => panic!("unexpected conflict with {found:?}"),
    }
}

async fn what_is_written_is_read(store: &dyn TokenStore) {
    assert_eq!(store.load(Table::Connection, key("a")).await.unwrap(), None);
    for value in [&b""[..], &[0u8, 255, 0][..], &vec![7u8; 300_000][..]] {
        let write = Write {
            table: Table::Connection,
            key: RecordKey(vec![0, 0xff, 0xfe]),
            value: Some(value.to_vec()),
            expected: Expected::Anything,
        };
        let revision = written(one(store, write).await);
        let found = store.load(Table::Connection, RecordKey(vec![0, 0xff, 0xfe])).await.unwrap().unwrap();
        assert_eq!((found.revision, found.value.as_slice()), (revision, value));
    }
    assert!(store.commit(Vec::new()).await.unwrap().is_empty(), "an empty commit is fine");
}

async fn tables_are_apart(store: &dyn TokenStore) {
    for table in Table::ALL {
        let value = Some(table.name().as_bytes().to_vec());
        let write = Write { table, key: key("same"), value, expected: Expected::Absent };
        written(one(store, write).await);
    }
    for table in Table::ALL {
        let found = store.load(table, key("same")).await.unwrap().unwrap();
        assert_eq!(found.value, table.name().as_bytes());
        assert_eq!(store.scan(table, Vec::new(), None, 9).await.unwrap().len(), 1);
    }
}

async fn a_write_happens_only_as_expected(store: &dyn TokenStore) {
    let stale = Expected::Revision(Revision(u64::MAX));
    assert_eq!(one(store, put("a", "0", stale)).await, WriteOutcome::Conflict(None));
    assert_eq!(one(store, remove("a", stale)).await, WriteOutcome::Conflict(None));
    assert_eq!(one(store, remove("a", Expected::Anything)).await, WriteOutcome::Written(Revision(0)));

    let first = written(one(store, put("a", "1", Expected::Absent)).await);
    assert_eq!(one(store, put("a", "x", Expected::Absent)).await, WriteOutcome::Conflict(Some(first)));
    let second = written(one(store, put("a", "2", Expected::Revision(first))).await);
    assert!(second > first, "revisions grow");
    let old = Expected::Revision(first);
    assert_eq!(one(store, put("a", "x", old)).await, WriteOutcome::Conflict(Some(second)));
    assert_eq!(one(store, remove("a", old)).await, WriteOutcome::Conflict(Some(second)));
    assert_eq!(one(store, remove("a", Expected::Absent)).await, WriteOutcome::Conflict(Some(second)));
    assert_eq!(store.load(Table::Connection, key("a")).await.unwrap().unwrap().value, b"2");

    let third = written(one(store, put("a", "3", Expected::Anything)).await);
    let current = Expected::Revision(third);
    assert_eq!(one(store, remove("a", current)).await, WriteOutcome::Written(third));
    assert_eq!(store.load(Table::Connection, key("a")).await.unwrap(), None);
    assert_eq!(one(store, remove("a", current)).await, WriteOutcome::Conflict(None));
}

async fn no_revision_is_used_twice(store: &dyn TokenStore) {
    let mut last = Revision(0);
    for _ in 0..5 {
        let revision = written(one(store, put("a", "v", Expected::Absent)).await);
        assert!(revision > last, "a removed record starts anew above {last:?}, not at {revision:?}");
        last = written(one(store, put("a", "w", Expected::Revision(revision))).await);
        assert!(last > revision);
        written(one(store, remove("a", Expected::Revision(last))).await);
    }
}

async fn writes_of_a_commit_are_independent_and_in_order(store: &dyn TokenStore) {
    let writes = vec![
        put("a", "1", Expected::Absent),
        put("a", "2", Expected::Absent),
        put("b", "1", Expected::Revision(Revision(u64::MAX))),
        put("c", "1", Expected::Absent),
        remove("c", Expected::Anything),
        put("c", "2", Expected::Absent),
    ];
    let outcomes = store.commit(writes).await.unwrap();
    let first = written(outcomes[0]);
    assert_eq!(outcomes[1], WriteOutcome::Conflict(Some(first)));
    assert_eq!(outcomes[2], WriteOutcome::Conflict(None));
    assert_eq!(outcomes[4], WriteOutcome::Written(written(outcomes[3])));
    assert!(written(outcomes[5]) > written(outcomes[3]));
    assert_eq!(store.load(Table::Connection, key("a")).await.unwrap().unwrap().value, b"1");
    assert_eq!(store.load(Table::Connection, key("b")).await.unwrap(), None);
    assert_eq!(store.load(Table::Connection, key("c")).await.unwrap().unwrap().value, b"2");
}

async fn scans_are_ordered_and_paged(store: &dyn TokenStore) {
    let names = ["p\0b", "q\0a", "p\0a", "p", "p\0c", "pp\0a", "p\0a\u{ff}", "\u{10ffff}"];
    store.commit(names.iter().map(|name| put(name, name, Expected::Absent)).collect()).await.unwrap();
    let scan = async |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        let found = store.scan(Table::Connection, prefix.into(), after.map(key), limit).await.unwrap();
        for (key, record) in &found {
            assert_eq!(key.0, record.value, "each key comes with its own record");
        }
        found.into_iter().map(|(key, _)| String::from_utf8(key.0).unwrap()).collect()
    };
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    assert_eq!(scan("", None, 100).await, sorted);
    assert_eq!(scan("p\0", None, 100).await, ["p\0a", "p\0a\u{ff}", "p\0b", "p\0c"]);
    assert_eq!(scan("p\0", None, 2).await, ["p\0a", "p\0a\u{ff}"]);
    assert_eq!(scan("p\0", Some("p\0a\u{ff}"), 2).await, ["p\0b", "p\0c"]);
    assert_eq!(scan("p\0", Some("p\0aa"), 100).await, ["p\0a\u{ff}", "p\0b", "p\0c"], "a gap is no matter");
    assert_eq!(scan("p\0", Some("a"), 1).await, ["p\0a"], "a cursor before the prefix");
    assert!(scan("p\0", Some("z"), 100).await.is_empty(), "a cursor behind the prefix");
    assert!(scan("p\0", Some("p\0c"), 100).await.is_empty());
    assert!(scan("nothing", None, 100).await.is_empty());
    assert!(scan("", None, 0).await.is_empty());
}

async fn of_many_takers_one_wins(store: Arc<dyn TokenStore>) {
    let revision = written(one(&*store, put("once", "v", Expected::Absent)).await);
    let takers = (0..100).map(|_| store.commit(vec![remove("once", Expected::Revision(revision))]));
    let outcomes = futures_util::future::join_all(takers).await;
    let winners = outcomes
        .into_iter()
        .filter(|outcome| outcome.as_ref().unwrap()[0] == WriteOutcome::Written(revision));
    assert_eq!(winners.count(), 1);
}

/// What a [`Step`] expects of its record, before the revisions are known.
#[derive(Clone, Copy, Debug)]
pub enum Guess {
    /// Whatever is there.
    Anything,
    /// Nothing is there.
    Absent,
    /// The record's present revision; nothing, if it is absent.
    Current,
    /// The revision the record had before its last write or removal.
    Stale,
}

/// One step of a random history.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes of one commit: key, value or removal, expectation.
    Commit(Vec<(String, Option<Vec<u8>>, Guess)>),
    /// A scan: prefix, cursor, limit.
    Scan(String, Option<String>, usize),
}

/// Plays `steps` on the empty `store` and on a plain map, and compares everything.
pub async fn check_against_model(store: &dyn TokenStore, steps: Vec<Step>) {
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(writes) => {
                // Expectations come from the state before the commit, as a real writer's do.
                let writes: Vec<_> = writes
                    .into_iter()
                    .map(|(name, value, guess)| Write {
                        table: Table::Connection,
                        expected: model.expectation(&name, guess),
                        key: key(&name),
                        value,
                    })
                    .collect();
                let outcomes = store.commit(writes.clone()).await.unwrap();
                assert_eq!(outcomes.len(), writes.len());
                for (write, outcome) in writes.into_iter().zip(outcomes) {
                    model.apply(write, outcome);
                }
            }
            Step::Scan(prefix, after, limit) => {
                let after = after.map(|after| key(&after));
                let found =
                    store.scan(Table::Connection, prefix.clone().into(), after.clone(), limit).await.unwrap();
                let expected: Vec<_> = model
                    .records
                    .iter()
                    .filter(|(key, _)| key.0.starts_with(prefix.as_bytes()))
                    .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
                    .take(limit)
                    .map(|(key, (revision, value))| (key.clone(), *revision, value.clone()))
                    .collect();
                let found: Vec<_> =
                    found.into_iter().map(|(key, record)| (key, record.revision, record.value)).collect();
                assert_eq!(found, expected);
            }
        }
    }
    for (key, (revision, value)) in &model.records {
        let found = store.load(Table::Connection, key.clone()).await.unwrap().unwrap();
        assert_eq!((found.revision, &found.value), (*revision, value));
    }
}

#[derive(Default)]
struct Model {
    records: BTreeMap<RecordKey, (Revision, Vec<u8>)>,
    before: BTreeMap<RecordKey, Revision>,
    /// The highest revision given so far.
    newest: u64,
}

impl Model {
    fn expectation(&self, name: &str, guess: Guess) -> Expected {
        let key = key(name);
        match guess {
            Guess::Anything => Expected::Anything,
            Guess::Absent => Expected::Absent,
            Guess::Current => {
                self.records.get(&key).map_or(Expected::Absent, |(revision, _)| Expected::Revision(*revision))
            }
            Guess::Stale => Expected::Revision(self.before.get(&key).copied().unwrap_or(Revision(u64::MAX))),
        }
    }

    fn apply(&mut self, write: Write, outcome: WriteOutcome) {
        let found = self.records.get(&write.key).map(|(revision, _)| *revision);
        let holds = match write.expected {
            Expected::Anything => true,
            Expected::Absent => found.is_none(),
            Expected::Revision(revision) => found == Some(revision),
        };
        if !holds {
            assert_eq!(outcome, WriteOutcome::Conflict(found), "{write:?}");
            return;
        }
        let revision = written(outcome);
        if let Some(found) = found {
            self.before.insert(write.key.clone(), found);
        }
        match write.value {
            Some(value) => {
                assert!(revision.0 > self.newest, "{revision:?} was given before");
                self.newest = revision.0;
                self.records.insert(write.key, (revision, value));
            }
            None => {
                assert_eq!(revision, found.unwrap_or(Revision(0)));
                self.records.remove(&write.key);
            }
        }
    }
}
