#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Handler, Message};
use futures_util::future::join_all;
use serde_json::Value;

use super::actor::TokenStoreActor;
use super::messages::*;
use super::operations::SCAN_PAGE;
use super::records::{connection_id, connection_key, hash_key};
use crate::clock::{SystemClock, SystemEntropy, Timestamp};
use crate::connection::{ConnectionRecord, Held, InFlight, OriginSet, Reason};
use crate::flow::record::{ConnectSession, FlowRecord, StateHash};
use crate::protocol::identifiers::{ConnectionId, ProfileId, Subject};
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::protocol::token::{AccessToken, Expiry, RefreshToken, TokenSet, TokenType};
use crate::store::keyring::{Keyring, SealingKey};
use crate::store::memory::{MemoryFaults, MemoryStore};
use crate::store::sealed::Vault;
use crate::store::{Expected, RecordKey, StoreError, Table, TokenStore, Write};
use crate::supervision::{ExitGuard, Observation, Observe};

pub(super) struct Bench {
    pub(super) actor: Addr<TokenStoreActor>,
    pub(super) store: Arc<dyn TokenStore>,
    pub(super) vault: Arc<Vault>,
}

impl Bench {
    pub(super) fn on(store: Arc<dyn TokenStore>) -> Self {
        let key = SealingKey::from_base64(&SealingKey::generate(&SystemEntropy)).unwrap();
        let ring = Keyring::new("k1", BTreeMap::from([("k1".to_owned(), key)])).unwrap();
        let vault = Arc::new(Vault::new(ring, Arc::new(SystemEntropy)));
        let actor = start(&store, &vault);
        Self { actor, store, vault }
    }

    pub(super) fn in_memory() -> (Self, MemoryFaults) {
        let faults = MemoryFaults::default();
        (Self::on(Arc::new(MemoryStore::new(faults.clone()))), faults)
    }

    pub(super) async fn ask<M>(&self, message: M) -> M::Result
    where
        M: Message + Send + 'static,
        M::Result: Send,
        TokenStoreActor: Handler<M>,
    {
        self.actor.send(message).await.unwrap()
    }

    pub(super) async fn observe(&self) -> Observation {
        self.ask(Observe).await
    }

    /// Writes past the actor, as a fault of the disk or another program would.
    async fn put(&self, table: Table, key: RecordKey, value: Vec<u8>) {
        let expected = Expected::Anything;
        self.store.commit(vec![Write { table, key, value: Some(value), expected }]).await.unwrap();
    }

    pub(super) async fn list(
        &self,
        profile: Option<&str>,
        subject: Option<&str>,
        limit: usize,
    ) -> Vec<Vec<String>> {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let profile = profile.map(|name| ProfileId::new(name).unwrap());
            let subject = subject.map(|name| Subject::new(name).unwrap());
            let page = self.ask(ListConnections { profile, subject, after, limit }).await.unwrap();
            pages.push(page.connections.iter().map(|found| found.id.to_string()).collect());
            after = page.next;
            if after.is_none() {
                return pages;
            }
        }
    }
}

pub(super) fn start(store: &Arc<dyn TokenStore>, vault: &Arc<Vault>) -> Addr<TokenStoreActor> {
    TokenStoreActor::new(store.clone(), vault.clone(), Arc::new(SystemClock), ExitGuard::detached()).start()
}

pub(super) fn id(profile: &str, subject: &str) -> ConnectionId {
    ConnectionId { profile: ProfileId::new(profile).unwrap(), subject: Subject::new(subject).unwrap() }
}

fn record(token: &str) -> ConnectionRecord {
    let at = Timestamp::from_secs(1_900_000_000);
    ConnectionRecord {
        created_at: at,
        origins: OriginSet::new(["https://api.example:443".to_owned(), "https://b.example:443".to_owned()]),
        issued_by: "https://as.example".to_owned(),
        obtained_with: String::new(),
        held: Held::Tokens(Box::new(TokenSet {
            access_token: AccessToken::new(token).unwrap(),
            dpop_key: None,
            token_type: TokenType::Bearer,
            obtained_at: at,
            expiry: Expiry::Stated { at: at.after(Duration::from_secs(60)) },
            refresh_token: Some(RefreshToken::new("a\\\"refresh").unwrap()),
            refresh_token_obtained_at: None,
            requested_scope: None,
            scope: None,
            identity: None,
            extra: BTreeMap::from([("instance_url".to_owned(), Value::from("https://x"))]),
        })),
        in_flight: Some(InFlight {
            owner: "me".into(),
            since: at,
            expires_at: at,
            refresh_token: None,
            cut_off: false,
        }),
        learned_lifetime: Some(60_000),
        unchecked_id_token: None,
        moving_to: None,
        moved_by: None,
    }
}

pub(super) fn save(id: &ConnectionId, token: &str, expected: Expected) -> SaveConnection {
    SaveConnection { id: id.clone(), record: record(token), expected }
}

fn flow(state: &str, expires_at: u64) -> FlowRecord {
    FlowRecord {
        dpop_key: None,
        state: StateHash::of(state),
        connection: id("p", "alice"),
        code_verifier: Some(Secret::new("verifier")),
        nonce: None,
        issuer: Some("https://id.example".into()),
        scopes: ScopeSet::default(),
        iss_required: true,
        device: None,
        redirect_uri: "http://127.0.0.1:8081/callback".into(),
        browser: StateHash::of("browser"),
        return_to: None,
        created_at: Timestamp::from_secs(1),
        expires_at: Timestamp::from_secs(expires_at),
    }
}

fn link(token: &str, expires_at: u64) -> ConnectSession {
    ConnectSession {
        scopes: ScopeSet::default(),
        token: StateHash::of(token),
        connection: id("p", "alice"),
        return_to: Some("/home".into()),
        expires_at: Timestamp::from_secs(expires_at),
    }
}

fn token_of(found: &StoredConnection) -> &str {
    match &found.record.held {
        Held::Tokens(tokens) => tokens.access_token.expose(),
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn a_record_comes_back_as_it_was_saved() {
    let (bench, _) = Bench::in_memory();
    let alice = id("p", "alice");
    assert!(bench.ask(LoadConnection(alice.clone())).await.unwrap().is_none());
    let revision = bench.ask(save(&alice, "t1", Expected::Absent)).await.unwrap();
    let found = bench.ask(LoadConnection(alice.clone())).await.unwrap().unwrap();
    let json = |record: &ConnectionRecord| serde_json::to_value(record).unwrap();
    assert_eq!((found.id, found.revision, json(&found.record)), (alice, revision, json(&record("t1"))));

    let bob = SaveConnection {
        id: id("p", "bob"),
        record: ConnectionRecord {
            held: Held::NeedsConsent { reason: Reason::GrantRevoked, since: Timestamp::from_secs(5) },
            in_flight: None,
            learned_lifetime: None,
            unchecked_id_token: None,
            ..record("none")
        },
        expected: Expected::Absent,
    };
    bench.ask(bob.clone()).await.unwrap();
    let found = bench.ask(LoadConnection(bob.id)).await.unwrap().unwrap();
    assert_eq!(json(&found.record), json(&bob.record));
}

#[actix::test]
async fn no_token_is_readable_in_the_backend() {
    let (bench, _) = Bench::in_memory();
    bench.ask(save(&id("p", "alice"), "canary-token", Expected::Absent)).await.unwrap();
    let stored = bench.store.scan(Table::Connection, Vec::new(), None, 9).await.unwrap();
    let text = String::from_utf8_lossy(&stored[0].1.value).into_owned();
    assert!(!text.contains("canary") && !text.contains("refresh"), "{text}");
    assert!(text.contains("https://api.example:443"), "the origins are in clear: {text}");
}

#[actix::test]
async fn a_save_happens_only_as_expected() {
    let (bench, _) = Bench::in_memory();
    let alice = id("p", "alice");
    let first = bench.ask(save(&alice, "t1", Expected::Absent)).await.unwrap();
    let second = bench.ask(save(&alice, "t2", Expected::Revision(first))).await.unwrap();
    for stale in [Expected::Absent, Expected::Revision(first)] {
        let refused = bench.ask(save(&alice, "t3", stale)).await;
        assert!(matches!(&refused, Err(StoreError::Conflict { key }) if key == "p/alice"), "{refused:?}");
        let refused = bench.ask(RemoveConnection { id: alice.clone(), expected: stale }).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    }
    assert_eq!(token_of(&bench.ask(LoadConnection(alice.clone())).await.unwrap().unwrap()), "t2");
    let removal = RemoveConnection { id: alice.clone(), expected: Expected::Revision(second) };
    bench.ask(removal.clone()).await.unwrap();
    bench.ask(removal).await.expect("removing what is absent is no error");
    assert!(bench.ask(LoadConnection(alice)).await.unwrap().is_none());
}

#[actix::test]
async fn listings_are_ordered_filtered_and_paged() {
    let (bench, _) = Bench::in_memory();
    for (profile, subject) in [("q", "alice"), ("p", "bob"), ("p", "alice"), ("pp", "alice"), ("p", "carol")]
    {
        bench.ask(save(&id(profile, subject), "t", Expected::Absent)).await.unwrap();
    }
    assert_eq!(bench.list(None, None, 100).await, [["p/alice", "p/bob", "p/carol", "pp/alice", "q/alice"]]);
    assert_eq!(bench.list(Some("p"), None, 2).await, [vec!["p/alice", "p/bob"], vec!["p/carol"]]);
    assert_eq!(bench.list(Some("p"), None, 3).await, [["p/alice", "p/bob", "p/carol"]]);
    assert_eq!(bench.list(None, Some("alice"), 2).await, [vec!["p/alice", "pp/alice"], vec!["q/alice"]]);
    assert_eq!(bench.list(Some("p"), Some("bob"), 1).await, [["p/bob"]]);
    assert_eq!(bench.list(Some("p"), Some("nobody"), 9).await, [Vec::<String>::new()]);
    assert_eq!(bench.list(None, None, 1).await.len(), 5);
}

#[actix::test]
async fn a_listing_goes_on_over_many_scans() {
    let (bench, _) = Bench::in_memory();
    let count = SCAN_PAGE * 2 + 3;
    let names: Vec<_> = (0..count).map(|n| id("p", &format!("s{n:05}"))).collect();
    let saved = join_all(names.iter().map(|name| bench.ask(save(name, "t", Expected::Absent)))).await;
    assert!(saved.iter().all(Result::is_ok));
    assert_eq!(bench.list(None, None, 1000).await.concat().len(), count);
    let last = names.last().unwrap();
    assert_eq!(bench.list(None, Some(last.subject.as_str()), 10).await, [[last.to_string()]]);
}

#[actix::test]
async fn a_damaged_record_is_named_and_hides_no_other() {
    let (bench, _) = Bench::in_memory();
    for subject in ["alice", "bob", "carol"] {
        bench.ask(save(&id("p", subject), subject, Expected::Absent)).await.unwrap();
    }
    let (alice, bob) = (connection_key(&id("p", "alice")), connection_key(&id("p", "bob")));
    // Swapped values: each is genuine, and in the wrong place.
    let value = bench.store.load(Table::Connection, alice.clone()).await.unwrap().unwrap().value;
    bench.put(Table::Connection, bob.clone(), value).await;
    bench.put(Table::Connection, RecordKey(b"no separator".to_vec()), vec![1]).await;

    let error = bench.ask(LoadConnection(id("p", "bob"))).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { table: Table::Connection, .. }), "{error:?}");
    assert!(error.to_string().contains("p/bob"), "{error}");
    let page = bench.ask(ListConnections { limit: 10, ..ListConnections::default() }).await.unwrap();
    let names: Vec<_> = page.connections.iter().map(|found| found.id.to_string()).collect();
    assert_eq!((names, page.damaged), (vec!["p/alice".to_owned(), "p/carol".to_owned()], 2));
    let stays = bench.store.load(Table::Connection, bob).await.unwrap();
    assert!(stays.is_some(), "it is left as it is");
    assert_eq!(bench.observe().await.detail["damaged"], 3);
}

#[actix::test]
async fn foreign_origins_versions_and_contents_are_damage() {
    let (bench, _) = Bench::in_memory();
    let key = connection_key(&id("p", "alice"));
    let origins = br#"["https://api.example:443","https://b.example:443"]"#;
    let content = serde_json::to_value(record("t")).unwrap();
    let good = serde_json::json!({"v": 1, "record": content}).to_string();
    let later = serde_json::json!({"v": 2, "record": {"else": 1}}).to_string();
    let strange = r#"{"v":1,"record":{"created_at":"canary-secret"}}"#.to_owned();
    let cases: [(&[u8], &str, Option<&str>); 5] = [
        (origins, &good, None),
        (br#"["https://evil.example:443"]"#, &good, Some("origins")),
        (b"", &good, Some("origins")),
        (origins, &later, Some("version 2")),
        (origins, &strange, Some("unreadable")),
    ];
    for (header, content, expected) in cases {
        let sealed = bench.vault.seal(Table::Connection, &key, header, content.as_bytes()).unwrap();
        bench.put(Table::Connection, key.clone(), sealed).await;
        match (bench.ask(LoadConnection(id("p", "alice"))).await, expected) {
            (Ok(Some(_)), None) => {}
            (Err(error @ StoreError::Damaged { .. }), Some(words)) => {
                let text = error.to_string();
                assert!(text.contains(words) && !text.contains("canary"), "{text}");
            }
            (other, _) => panic!("{other:?} for {expected:?}"),
        }
    }
}

#[actix::test]
async fn a_flow_is_used_up_by_just_one() {
    let (bench, _) = Bench::in_memory();
    bench.ask(SaveFlow(flow("s", 100))).await.unwrap();
    let found = bench.ask(LoadFlow(StateHash::of("s"))).await.unwrap().unwrap();
    assert_eq!(found.code_verifier, Some(Secret::new("verifier")));
    let taken = join_all((0..100).map(|_| bench.ask(TakeFlow(StateHash::of("s"))))).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken.as_ref().unwrap()).count(), 1);
    assert!(bench.ask(LoadFlow(StateHash::of("s"))).await.unwrap().is_none());
    assert!(!bench.ask(TakeFlow(StateHash::of("never"))).await.unwrap());
}

#[actix::test]
async fn a_connect_link_is_used_up_by_just_one() {
    let (bench, _) = Bench::in_memory();
    bench.ask(SaveConnectSession(link("l", 100))).await.unwrap();
    let taken = join_all((0..100).map(|_| bench.ask(TakeConnectSession(StateHash::of("l"))))).await;
    let winners: Vec<_> = taken.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(winners[0].return_to.as_deref(), Some("/home"));
}

#[actix::test]
async fn what_has_expired_is_purged_and_nothing_else() {
    let (bench, _) = Bench::in_memory();
    let count = SCAN_PAGE as u64 + 20;
    for number in 0..count {
        bench.ask(SaveFlow(flow(&format!("f{number}"), number))).await.unwrap();
    }
    bench.ask(SaveConnectSession(link("old", 10))).await.unwrap();
    bench.ask(SaveConnectSession(link("new", 11))).await.unwrap();
    bench.put(Table::Flow, hash_key(&StateHash::of("damaged")), vec![1, 2, 3]).await;
    bench.ask(save(&id("p", "alice"), "t", Expected::Absent)).await.unwrap();

    assert_eq!(bench.ask(PurgeExpired { now: Timestamp::from_secs(10) }).await.unwrap(), 12);
    let left = bench.ask(LoadFlows { limit: 10_000 }).await.unwrap();
    assert_eq!(left.len() as u64, count - 11);
    assert!(left.iter().all(|flow| flow.expires_at > Timestamp::from_secs(10)));
    assert_eq!(bench.ask(LoadFlows { limit: 7 }).await.unwrap().len(), 7);
    assert!(bench.ask(TakeConnectSession(StateHash::of("old"))).await.unwrap().is_none());
    assert!(bench.ask(TakeConnectSession(StateHash::of("new"))).await.unwrap().is_some());
    assert_eq!(
        bench.ask(PurgeExpired { now: Timestamp::from_secs(100_000) }).await.unwrap() as u64,
        count - 11
    );
    assert!(bench.ask(LoadConnection(id("p", "alice"))).await.unwrap().is_some());
}

#[test]
fn keys_sort_by_profile_then_subject_and_read_back() {
    let ids = [id("a", "z"), id("a", "\u{10ffff}"), id("a!", "a"), id("ab", "a"), id("b", "a b")];
    let keys: Vec<_> = ids.iter().map(connection_key).collect();
    assert!(keys.is_sorted(), "{keys:?}");
    assert_eq!(keys.iter().map(|key| connection_id(key).unwrap()).collect::<Vec<_>>(), ids);
    assert_eq!(connection_id(&RecordKey(b"a\0b\0c".to_vec())), None);
}
