//! Load, failures, panics and silence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use actix::{Handler, Message};
use futures_util::future::{BoxFuture, join_all};
use serde_json::Value;

use super::actor::TokenStoreActor;
use super::group_commit::MAX_WAITING;
use super::messages::*;
use super::tests::{Bench, id, save, start};
use crate::clock::Timestamp;
use crate::store::sled::SledStore;
use crate::store::{Expected, Record, RecordKey, StoreError, Table, TokenStore, Write, WriteOutcome};

#[actix::test]
async fn concurrent_writers_share_flushes() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::on(Arc::new(SledStore::open(directory.path()).unwrap()));
    let names: Vec<_> = (0..200).map(|n| id("p", &format!("s{n}"))).collect();
    let saved = join_all(names.iter().map(|name| bench.ask(save(name, "t", Expected::Absent)))).await;
    assert!(saved.iter().all(Result::is_ok));
    let seen = bench.observe().await;
    assert_eq!((seen.state.as_str(), &seen.detail["backend"]), ("idle", &Value::from("sled")));
    let number = |name: &str| seen.detail[name].as_u64().unwrap();
    assert_eq!(number("writes"), 200);
    assert!(number("commits") < 20, "{} commits", number("commits"));
    assert!(number("batch_max") > 10);
    for name in names {
        assert!(bench.ask(LoadConnection(name)).await.unwrap().is_some());
    }
}

#[actix::test]
async fn a_failed_commit_is_told_to_its_writers_and_shown_until_one_succeeds() {
    let (bench, faults) = Bench::in_memory();
    faults.fail_next_commits(1);
    let failed = bench.ask(save(&id("p", "alice"), "t1", Expected::Absent)).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))));
    let seen = bench.observe().await;
    assert_eq!((seen.state.as_str(), seen.detail["failed_commits"].as_u64()), ("failing", Some(1)));
    assert!(seen.last_error.unwrap().contains("planned failure"));
    bench.ask(save(&id("p", "alice"), "t1", Expected::Absent)).await.unwrap();
    assert_eq!(bench.observe().await.state, "idle");
    faults.fail_next_reads(1);
    assert!(bench.ask(LoadConnection(id("p", "alice"))).await.is_err());
}

struct Panic;

impl Message for Panic {
    type Result = ();
}

impl Handler<Panic> for TokenStoreActor {
    type Result = ();
    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("a fault made for this test");
    }
}

#[actix::test]
async fn a_panic_of_the_actor_loses_no_write_that_it_had_taken() {
    let (mut bench, faults) = Bench::in_memory();
    faults.delay_commits(Duration::from_millis(30));
    let names: Vec<_> = (0..50).map(|n| id("p", &format!("s{n}"))).collect();
    let writes: Vec<_> =
        names.iter().map(|name| bench.actor.send(save(name, "t", Expected::Absent))).collect();
    let writes = actix_rt::spawn(join_all(writes));
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(bench.observe().await.state, "committing");
    assert!(bench.actor.send(Panic).await.is_err());
    assert!(!bench.actor.connected(), "the actor is gone");

    bench.actor = start(&bench.store, &bench.vault);
    let overwritten = bench.ask(save(&names[0], "t2", Expected::Absent)).await;
    assert!(matches!(overwritten, Err(StoreError::Conflict { .. })), "{overwritten:?}");
    for answer in writes.await.unwrap() {
        answer.unwrap().unwrap();
    }
    assert_eq!(bench.list(None, None, 1000).await[0].len(), 50);
}

/// A backend that never answers, or panics.
#[derive(Debug)]
struct Broken {
    panics: bool,
}

impl TokenStore for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    fn load(&self, _: Table, _: RecordKey) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        Box::pin(std::future::pending())
    }
    fn scan(
        &self,
        _: Table,
        _: Vec<u8>,
        _: Option<RecordKey>,
        _: usize,
    ) -> BoxFuture<'static, Result<Vec<(RecordKey, Record)>, StoreError>> {
        Box::pin(std::future::pending())
    }
    fn commit(&self, _: Vec<Write>) -> BoxFuture<'static, Result<Vec<WriteOutcome>, StoreError>> {
        assert!(!self.panics, "a fault made for this test");
        Box::pin(std::future::pending())
    }
    fn is_exclusive(&self) -> bool {
        true
    }
}

#[actix::test]
async fn nothing_waits_for_ever() {
    tokio::time::pause();
    let bench = Bench::on(Arc::new(Broken { panics: false }));
    let saving = bench.ask(save(&id("p", "alice"), "t", Expected::Absent));
    let (saved, loaded, listed, purged) = tokio::join!(
        saving,
        bench.ask(LoadConnection(id("p", "alice"))),
        bench.ask(ListConnections::default()),
        bench.ask(PurgeExpired { now: Timestamp::from_secs(1) }),
    );
    let unavailable = |error: StoreError| assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    unavailable(saved.unwrap_err());
    unavailable(loaded.unwrap_err());
    unavailable(listed.unwrap_err());
    unavailable(purged.unwrap_err());
    let seen = bench.observe().await;
    assert_eq!(
        (seen.state.as_str(), &seen.detail["pending"], &seen.detail["reads"]),
        ("failing", &0.into(), &0.into())
    );
}

#[actix::test]
async fn too_many_waiting_writes_are_refused_as_busy() {
    tokio::time::pause();
    let (bench, faults) = Bench::in_memory();
    faults.delay_commits(Duration::from_secs(1));
    let asked = (0..MAX_WAITING + 1000).map(|n| {
        // Past the mailbox's limit, which would hold the rest back.
        let (answer, answered) = tokio::sync::oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "the mailbox shall overflow")]
        bench.actor.do_send(Forward(save(&id("p", &format!("s{n}")), "t", Expected::Absent), answer));
        answered
    });
    let answers = join_all(asked.collect::<Vec<_>>()).await;
    let (mut made, mut busy, mut late) = (0, 0, 0);
    for answer in answers {
        match answer.unwrap() {
            Ok(_) => made += 1,
            Err(StoreError::Unavailable(why)) if why.contains("busy") => busy += 1,
            Err(StoreError::Unavailable(why)) if why.contains("15 seconds") => late += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    // The commit under way began with what there was in its turn; all else waited or was refused.
    assert!(busy >= 700, "{made} made, {busy} busy, {late} late");
    assert!(made >= 256 * 14 && late > 0, "{made} made, {busy} busy, {late} late");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let stored = bench.list(None, None, 1000).await.concat().len();
    assert!(stored - made <= 256, "of what was answered late only the commit under way is made");
}

struct Forward(SaveConnection, tokio::sync::oneshot::Sender<Result<crate::store::Revision, StoreError>>);

impl Message for Forward {
    type Result = ();
}

impl Handler<Forward> for TokenStoreActor {
    type Result = ();
    fn handle(&mut self, Forward(message, answer): Forward, ctx: &mut Self::Context) {
        let saving = <Self as Handler<SaveConnection>>::handle(self, message, ctx);
        actix_rt::spawn(async move { answer.send(saving.await) });
    }
}

#[actix::test]
async fn a_backend_that_panics_is_told_to_its_writers() {
    let bench = Bench::on(Arc::new(Broken { panics: true }));
    for _ in 0..2 {
        let failed = bench.ask(save(&id("p", "alice"), "t", Expected::Absent)).await;
        assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    }
    let seen = bench.observe().await;
    assert_eq!((seen.state.as_str(), &seen.detail["failed_commits"]), ("failing", &2.into()));
}
