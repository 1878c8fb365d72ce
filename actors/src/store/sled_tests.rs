#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use super::sled::SledStore;
use super::sled_files::StoreDirectory;
use super::*;

fn put(key: &str, value: impl Into<Vec<u8>>, expected: Expected) -> Write {
    let key = RecordKey(key.as_bytes().to_vec());
    Write { table: Table::Connection, key, value: Some(value.into()), expected }
}

async fn commit_one(store: &SledStore, write: Write) -> Revision {
    match store.commit(vec![write]).await.unwrap()[0] {
        WriteOutcome::Written(revision) => revision,
        WriteOutcome::Conflict(found) => panic!("conflict with {found:?}"),
    }
}

async fn read(store: &SledStore, key: &str) -> Option<Record> {
    store.load(Table::Connection, RecordKey(key.as_bytes().to_vec())).await.unwrap()
}

fn refusal(path: &Path) -> String {
    match SledStore::open(path) {
        Err(error @ StoreError::Open { .. }) => {
            let text = error.to_string();
            assert!(text.contains(path.to_str().unwrap()), "names the store: {text}");
            text
        }
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn a_closed_store_opens_again_at_once_with_all_that_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    let mut last = Revision(0);
    for round in 0..5u8 {
        let store = SledStore::open(directory.path()).unwrap();
        if round > 0 {
            let found = read(&store, "a").await.unwrap();
            assert_eq!((found.revision, found.value), (last, vec![round - 1]));
        }
        let revision = commit_one(&store, put("a", [round], Expected::Anything)).await;
        assert!(revision > last);
        last = revision;
    }
}

#[actix::test]
async fn no_revision_returns_after_removal_and_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    let first = commit_one(&store, put("a", "1", Expected::Absent)).await;
    let removal = Write { value: None, ..put("a", "", Expected::Revision(first)) };
    commit_one(&store, removal).await;
    drop(store);
    let store = SledStore::open(directory.path()).unwrap();
    assert!(commit_one(&store, put("a", "2", Expected::Absent)).await > first);
}

/// What a kill leaves: the files as they are, without anything that closing would still do.
#[actix::test]
async fn what_was_answered_is_in_the_files_before_the_store_is_closed() {
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = SledStore::open(directory.path()).unwrap();
    for number in 0..50u8 {
        commit_one(&store, put(&format!("k{number}"), vec![number; 2_000], Expected::Absent)).await;
    }
    commit_one(&store, put("large", vec![9; 400_000], Expected::Absent)).await;
    fs::create_dir(copy.path().join("blobs")).unwrap();
    for folder in ["", "blobs"] {
        for entry in fs::read_dir(directory.path().join(folder)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), copy.path().join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    let survivor = SledStore::open(copy.path()).unwrap();
    for number in 0..50u8 {
        assert_eq!(read(&survivor, &format!("k{number}")).await.unwrap().value, vec![number; 2_000]);
    }
    assert_eq!(read(&survivor, "large").await.unwrap().value.len(), 400_000);
    drop(store);
}

#[actix::test]
async fn directory_and_files_are_for_their_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("deep/er");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let check = || {
        assert_eq!(mode(&path), 0o700);
        let mut files = 0;
        for folder in [path.clone(), path.join("blobs")] {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let expected = if entry.path().is_dir() { 0o700 } else { 0o600 };
                assert_eq!(mode(&entry.path()), expected, "{:?}", entry.path());
                files += 1;
            }
        }
        files
    };
    let store = SledStore::open(&path).unwrap();
    commit_one(&store, put("large", vec![9; 400_000], Expected::Absent)).await;
    let files = check();
    assert!(files >= 4, "{files} files");
    drop(store);
    check();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(path.join("db"), Permissions::from_mode(0o644)).unwrap();
    let store = SledStore::open(&path).unwrap();
    check();
    drop(store);
}

#[actix::test]
async fn a_store_is_open_once_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    assert!(refusal(directory.path()).contains("another process has this store open"));
    commit_one(&store, put("a", "still works", Expected::Absent)).await;
    drop(store);
    SledStore::open(directory.path()).unwrap();
}

#[test]
fn a_place_that_is_no_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(refusal(&file).contains("there is a file of that name"));
    refusal(&file.join("below"));
    refusal(Path::new("/proc/no-such-place/tokens"));
}

#[actix::test]
async fn a_database_that_lost_its_content_is_refused_each_time() {
    let make = async || {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path()).unwrap();
        for number in 0..20 {
            commit_one(&store, put(&format!("k{number}"), vec![7; 5_000], Expected::Absent)).await;
        }
        drop(store);
        directory
    };
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("garbage for a configuration", |path| fs::write(path.join("conf"), [0xa5; 64]).unwrap()),
        ("an empty data file", |path| fs::write(path.join("db"), []).unwrap()),
        ("a missing data file", |path| fs::remove_file(path.join("db")).unwrap()),
        ("zeroes for data", |path| {
            let length = fs::metadata(path.join("db")).unwrap().len();
            fs::write(path.join("db"), vec![0; usize::try_from(length).unwrap()]).unwrap();
        }),
        ("noise for data", |path| {
            let length = fs::metadata(path.join("db")).unwrap().len();
            fs::write(path.join("db"), vec![0xa5; usize::try_from(length).unwrap()]).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let directory = make().await;
        damage(directory.path());
        let text = refusal(directory.path());
        assert!(text.contains("damaged"), "{what}: {text}");
        assert!(refusal(directory.path()).contains("damaged"), "{what}: and it stays refused");
    }
}

#[actix::test]
async fn a_failed_flush_is_no_answer_and_the_store_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    let first = commit_one(&store, put("a", "1", Expected::Absent)).await;
    store.fail_flush.store(true, Ordering::SeqCst);
    let failed = store.commit(vec![put("a", "2", Expected::Revision(first))]).await;
    assert!(
        matches!(&failed, Err(StoreError::Unavailable(why)) if why.contains("not durable")),
        "{failed:?}"
    );
    // Whether that write was made is open, as the error says; a later one tells.
    let found = read(&store, "a").await.unwrap();
    let second = commit_one(&store, put("a", "3", Expected::Revision(found.revision))).await;
    assert!(second > first);
    assert_eq!(read(&store, "a").await.unwrap().value, b"3");
}

async fn filled() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    for number in 0..40 {
        commit_one(&store, put(&format!("k{number}"), vec![7; 3_000], Expected::Absent)).await;
    }
    directory
}

async fn intact(store: &SledStore) -> usize {
    let found = store.scan(Table::Connection, Vec::new(), None, 100).await.unwrap();
    found.iter().filter(|(_, record)| record.value == [7; 3_000]).count()
}

/// Changes one byte that is in use.
fn damage(directory: &Path, which: usize) {
    let path = directory.join("db");
    let mut bytes = fs::read(&path).unwrap();
    let used: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    bytes[used[which % used.len()]] ^= 0x41;
    fs::write(path, bytes).unwrap();
}

#[actix::test]
async fn no_damaged_byte_loses_a_record_in_silence() {
    let mut refused = 0;
    for round in 0..20 {
        let directory = filled().await;
        damage(directory.path(), round * 7_919 * 31);
        match SledStore::open(directory.path()) {
            Ok(store) => assert_eq!(intact(&store).await, 40, "round {round}"),
            Err(error) => {
                assert!(error.to_string().contains("damaged"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "nothing was damaged at all");
}

#[actix::test]
async fn a_data_file_from_before_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    let first = commit_one(&store, put("a", "old refresh token", Expected::Absent)).await;
    let before = fs::read(directory.path().join("db")).unwrap();
    commit_one(&store, put("a", "new refresh token", Expected::Revision(first))).await;
    drop(store);
    for entry in fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().starts_with("snap") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    fs::write(directory.path().join("db"), before).unwrap();
    assert!(refusal(directory.path()).contains("older than it was"));
}

#[actix::test]
async fn a_lost_record_is_noticed_and_an_operator_may_go_on_without_it() {
    let directory = filled().await;
    let raw = ::sled::Config::new().path(directory.path()).open().unwrap();
    assert!(raw.open_tree("claviger").unwrap().remove(b"ck7").unwrap().is_some());
    drop(raw);
    StoreDirectory::prepare(directory.path()).unwrap().await_unlocked();
    assert!(refusal(directory.path()).contains("of 40 records it should have, 39 are there"));
    fs::remove_file(directory.path().join("claviger-store")).unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    assert_eq!(intact(&store).await, 39);
    let revision = commit_one(&store, put("k7", "v", Expected::Absent)).await;
    assert!(revision.0 > 1_000_000, "{revision:?} cannot have been given and lost");
    drop(store);
    let store = SledStore::open(directory.path()).unwrap();
    assert_eq!(read(&store, "k7").await.unwrap().revision, revision);
}

const CHILD_STORE: &str = "CLAVIGER_TEST_CHILD_STORE";
const KEYS: u32 = 7;

/// The process that the next test kills: writes on and on, and says what was answered.
#[actix::test]
async fn child_that_writes_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD_STORE) else { return };
    let store = SledStore::open(Path::new(&path)).unwrap();
    for number in 1..50_000u32 {
        let name = format!("k{}", number % KEYS);
        let value = number.to_be_bytes().repeat(1 + (number as usize % 3) * 1_500);
        let write = match number % 5 {
            0 => Write { value: None, ..put(&name, "", Expected::Anything) },
            _ => put(&name, value, Expected::Anything),
        };
        let other = put("other", "v", Expected::Anything);
        let (done, _) = tokio::join!(store.commit(vec![write]), store.commit(vec![other]));
        done.unwrap();
        eprintln!("answered {number}");
    }
}

/// The number that key `name` holds after the child's write `last`, as far as it must.
fn expected(last: u32, name: u32) -> Option<u32> {
    let newest = (1..=last).rev().find(|number| number % KEYS == name)?;
    (newest % 5 != 0).then_some(newest)
}

#[actix::test]
async fn a_kill_at_any_moment_loses_nothing_that_was_answered() {
    for round in 0..15u64 {
        let directory = tempfile::tempdir().unwrap();
        for life in 0..2 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::sled_tests::child_that_writes_until_it_is_killed", "--nocapture"])
                .env(CHILD_STORE, directory.path())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
            let mut last = 0;
            for line in lines.take(usize::try_from(3 + round * 5).unwrap()) {
                last = line.strip_prefix("answered ").expect(&line).parse().unwrap();
            }
            std::thread::sleep(std::time::Duration::from_micros(round * 700));
            child.kill().unwrap();
            child.wait().unwrap();

            let store = SledStore::open(directory.path()).unwrap_or_else(|e| panic!("life {life}: {e}"));
            let mut found = BTreeMap::new();
            for name in 0..KEYS {
                let value = read(&store, &format!("k{name}")).await.map(|record| record.value);
                found.insert(name, value.map(|v| u32::from_be_bytes(v[..4].try_into().unwrap())));
            }
            // It went on after what was read here: some later moment must fit as a whole.
            let fits =
                (last..last + 10_000).any(|at| found.iter().all(|(name, is)| *is == expected(at, *name)));
            // The second life begins upon the first one's records.
            assert!(
                fits || life > 0 && last < KEYS,
                "round {round}, life {life}: {last} answered, {found:?}"
            );
        }
    }
}
