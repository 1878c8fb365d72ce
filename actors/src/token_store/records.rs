//! How records are named, written and sealed: `{"v":1,"record":{…}}`, sealed for its place.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::connection::ConnectionRecord;
use crate::flow::record::StateHash;
use crate::protocol::identifiers::{ConnectionId, ProfileId, Subject};
use crate::store::sealed::Vault;
use crate::store::{RecordKey, StoreError, Table};

/// The version of what is sealed. A change that an older program would misread needs a new one.
const VERSION: u32 = 1;

/// Between profile and subject. Names have no control characters, so this is unambiguous, and it
/// sorts before all that they do have.
const SEPARATOR: u8 = 0;

/// The key of one connection's record: keys sort by profile, then subject.
pub(super) fn connection_key(id: &ConnectionId) -> RecordKey {
    RecordKey([id.profile.as_str().as_bytes(), &[SEPARATOR], id.subject.as_str().as_bytes()].concat())
}

/// What the keys of all connections of a profile begin with.
pub(super) fn profile_prefix(profile: &ProfileId) -> Vec<u8> {
    [profile.as_str().as_bytes(), &[SEPARATOR]].concat()
}

/// The connection that a record's key names, if it names one.
pub(super) fn connection_id(key: &RecordKey) -> Option<ConnectionId> {
    let (profile, subject) = std::str::from_utf8(&key.0).ok()?.split_once(char::from(SEPARATOR))?;
    Some(ConnectionId { profile: ProfileId::new(profile).ok()?, subject: Subject::new(subject).ok()? })
}

/// The key of a flow's or connect link's record.
pub(super) fn hash_key(hash: &StateHash) -> RecordKey {
    RecordKey(hash.0.to_vec())
}

/// The key of the signing keys that the gateway made for a profile.
pub(super) fn signing_keys_key(profile: &ProfileId) -> RecordKey {
    RecordKey([b"signing-keys/", profile.as_str().as_bytes()].concat())
}

#[derive(Serialize)]
struct Written<'a, T> {
    v: u32,
    record: &'a T,
}

#[derive(Deserialize)]
struct VersionOnly {
    v: u32,
}

#[derive(Deserialize)]
struct Read<T> {
    record: T,
}

/// Seals a record that has nothing in clear.
pub(super) fn seal<T: Serialize>(
    vault: &Vault,
    table: Table,
    key: &RecordKey,
    record: &T,
) -> Result<Vec<u8>, StoreError> {
    seal_with_header(vault, table, key, &[], record)
}

/// Seals a connection's record, its origins in clear as associated data.
pub(super) fn seal_connection(
    vault: &Vault,
    key: &RecordKey,
    record: &ConnectionRecord,
) -> Result<Vec<u8>, StoreError> {
    let header = serde_json::to_vec(&record.origins).map_err(|error| unsealable(key, &error))?;
    seal_with_header(vault, Table::Connection, key, &header, record)
}

/// Opens a record that has nothing in clear.
pub(super) fn open<T: DeserializeOwned>(
    vault: &Vault,
    table: Table,
    key: &RecordKey,
    sealed: &[u8],
) -> Result<T, StoreError> {
    open_with_header(vault, table, key, sealed).map(|(_, record)| record)
}

/// Opens a connection's record; its origins must be those in clear.
pub(super) fn open_connection(
    vault: &Vault,
    key: &RecordKey,
    sealed: &[u8],
) -> Result<ConnectionRecord, StoreError> {
    let (header, record): (_, ConnectionRecord) = open_with_header(vault, Table::Connection, key, sealed)?;
    if serde_json::from_slice(&header).ok().as_ref() != Some(&record.origins) {
        return Err(damaged(Table::Connection, key, "its origins are not those it was sealed for".into()));
    }
    Ok(record)
}

fn seal_with_header<T: Serialize>(
    vault: &Vault,
    table: Table,
    key: &RecordKey,
    header: &[u8],
    record: &T,
) -> Result<Vec<u8>, StoreError> {
    let written = Written { v: VERSION, record };
    // Measured first: a buffer that grows leaves copies of tokens behind in freed memory.
    let mut length = Length(0);
    serde_json::to_writer(&mut length, &written).map_err(|error| unsealable(key, &error))?;
    let mut plaintext = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *plaintext, &written).map_err(|error| unsealable(key, &error))?;
    vault.seal(table, key, header, &plaintext).map_err(|error| unsealable(key, &error))
}

fn open_with_header<T: DeserializeOwned>(
    vault: &Vault,
    table: Table,
    key: &RecordKey,
    sealed: &[u8],
) -> Result<(Vec<u8>, T), StoreError> {
    let opened = vault.open(table, key, sealed).map_err(|error| damaged(table, key, error.to_string()))?;
    // serde's own words may quote the content, so only the place is told.
    let unreadable = |error: serde_json::Error| {
        damaged(table, key, format!("its content is unreadable from byte {} on", error.column()))
    };
    let VersionOnly { v } = serde_json::from_slice(&opened.plaintext).map_err(unreadable)?;
    if v != VERSION {
        let cause = format!("it is of version {v}, and this program knows version {VERSION} only");
        return Err(damaged(table, key, cause));
    }
    let Read { record } = serde_json::from_slice(&opened.plaintext).map_err(unreadable)?;
    Ok((opened.header, record))
}

fn damaged(table: Table, key: &RecordKey, cause: String) -> StoreError {
    StoreError::Damaged { table, key: key.to_string(), cause }
}

fn unsealable(key: &RecordKey, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("record {key} cannot be written: {error}"))
}

/// Counts what is written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
