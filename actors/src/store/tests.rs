//! Every backend against the contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::contract::{Guess, Step, check_against_model, check_store};
use super::memory::{MemoryFaults, MemoryStore};
use super::*;
use crate::registration::settings::Setting;

/// A backend by its row, on new directories that live as long as this does.
struct Stores(RefCell<Vec<tempfile::TempDir>>);

impl Stores {
    fn make(&self, name: &str) -> Arc<dyn TokenStore> {
        if name == "memory" {
            return Arc::new(MemoryStore::default());
        }
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        let path = directory.path().join("tokens").to_str().unwrap().to_owned();
        settings.insert("path", Setting::Value(path.into()));
        let opener = (find(name).unwrap().build)(&mut settings).unwrap();
        assert_eq!(settings.leftovers().count(), 0, "a backend takes what is its own");
        self.0.borrow_mut().push(directory);
        opener().unwrap()
    }
}

fn backends() -> impl Iterator<Item = &'static str> {
    BACKENDS.iter().map(|row| row.name).chain(["memory"])
}

#[actix::test]
async fn every_backend_keeps_the_contract() {
    let stores = Stores(RefCell::default());
    for name in backends() {
        check_store(|| stores.make(name)).await;
        assert_eq!(stores.make(name).name(), name);
    }
}

#[test]
fn backends_are_found_by_name_and_check_their_settings_first() {
    assert!(find("sledd").is_none());
    let build = find("sled").unwrap().build;
    assert_eq!(build(&mut Settings::default()).err().unwrap().key, "path");
    for wrong in [serde_json::json!(7), serde_json::json!(""), serde_json::json!(["a"])] {
        let mut settings = Settings::default();
        settings.insert("path", Setting::Value(wrong));
        assert!(build(&mut settings).err().unwrap().to_string().contains("directory"));
    }
}

fn name() -> impl Strategy<Value = String> {
    "[ab\0]{0,3}"
}

fn step() -> impl Strategy<Value = Step> {
    let guess =
        prop_oneof![Just(Guess::Anything), Just(Guess::Absent), Just(Guess::Current), Just(Guess::Stale)];
    let value = prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
        1 => Just(None),
    ];
    let commit = proptest::collection::vec((name(), value, guess), 0..5).prop_map(Step::Commit);
    let scan = ("[ab\0]{0,2}", proptest::option::of(name()), 0usize..8)
        .prop_map(|(prefix, after, limit)| Step::Scan(prefix, after, limit));
    prop_oneof![3 => commit, 1 => scan]
}

fn play(name: &str, steps: Vec<Step>) {
    let stores = Stores(RefCell::default());
    actix::System::new().block_on(async { check_against_model(&*stores.make(name), steps).await });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn memory_behaves_like_a_map(steps in proptest::collection::vec(step(), 0..40)) {
        play("memory", steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn sled_behaves_like_a_map(steps in proptest::collection::vec(step(), 0..40)) {
        play("sled", steps);
    }
}

fn write(value: &str) -> Vec<Write> {
    let expected = Expected::Anything;
    vec![Write { table: Table::Flow, key: RecordKey(b"k".to_vec()), value: Some(value.into()), expected }]
}

#[tokio::test(start_paused = true)]
async fn a_simulated_crash_loses_just_what_was_not_answered() {
    let faults = MemoryFaults::default();
    let store = MemoryStore::new(faults.clone());
    store.commit(write("answered")).await.unwrap();
    faults.delay_commits(Duration::from_millis(5));
    let in_flight = tokio::spawn(store.commit(write("in flight")));
    tokio::time::sleep(Duration::from_millis(1)).await;
    faults.crash();
    assert!(matches!(in_flight.await.unwrap(), Err(StoreError::Unavailable(_))));
    let read = async || store.load(Table::Flow, RecordKey(b"k".to_vec())).await.unwrap().unwrap().value;
    assert_eq!(read().await, b"answered");
    store.commit(write("next life")).await.unwrap();
    assert_eq!(read().await, b"next life");
}

#[tokio::test]
async fn planned_faults_come_as_often_as_planned() {
    let faults = MemoryFaults::default();
    let store = MemoryStore::new(faults.clone());
    faults.fail_next_commits(2);
    assert!(store.commit(write("1")).await.is_err());
    assert!(store.commit(write("2")).await.is_err());
    faults.fail_next_reads(1);
    assert!(store.load(Table::Flow, RecordKey(b"k".to_vec())).await.is_err());
    assert_eq!(store.load(Table::Flow, RecordKey(b"k".to_vec())).await.unwrap(), None);
    faults.lose_next_answers(1);
    assert!(store.commit(write("3")).await.is_err());
    assert_eq!(store.load(Table::Flow, RecordKey(b"k".to_vec())).await.unwrap().unwrap().value, b"3");
    store.commit(write("4")).await.unwrap();
    assert_eq!(faults.commits(), 2);
}
