#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::sled::SledStore;
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
