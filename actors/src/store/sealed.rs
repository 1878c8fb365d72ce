//! Encryption at rest, above any backend: a backend only ever sees sealed records.
//!
//! A sealed record, numbers big-endian:
//!
//! ```text
//! "CLV1" | algorithm u8 | key id (u8 length) | clear header (u32 length) | nonce (24) | ciphertext and tag
//! ```
//!
//! The one algorithm is XChaCha20-Poly1305, whose 192-bit nonce may be drawn at random without
//! limit. Format, algorithm, key id, table, record key and clear header are associated data, each
//! with its length before it, so that a record that was moved, renamed or relabelled does not open.
//! What is not understood is an error; nothing is ever taken for plaintext.

use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use thiserror::Error;
use zeroize::Zeroizing;

use super::keyring::{Keyring, SealingKey};
use super::{Expected, RecordKey, StoreError, Table, TokenStore, Write, WriteOutcome};
use crate::clock::Entropy;

const MAGIC: &[u8; 4] = b"CLV1";
const XCHACHA20_POLY1305: u8 = 1;
const NONCE_LENGTH: usize = 24;
const TAG_LENGTH: usize = 16;
/// Keeps these records apart from anything else that may ever be sealed with the same key.
const DOMAIN: &[u8] = b"claviger token store record";

const CHECK_PREFIX: &[u8] = b"key-check/";
const CHECK_TEXT: &[u8] = b"claviger key check";
/// Key checks read at a time; a store has as many as it ever had active keys.
const CHECK_PAGE: usize = 100;

/// Why a record could not be sealed or opened. It never says more of the content than that.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// It does not begin as a sealed record does.
    #[error("it is not a sealed record of a format known here")]
    UnknownFormat,
    /// A later version sealed it, or it is damaged.
    #[error("algorithm {0} is not known here")]
    UnknownAlgorithm(u8),
    /// Its key is not configured.
    #[error("it is sealed with key {id:?}, which is not configured")]
    UnknownKey {
        /// The key's id, as the record has it.
        id: String,
    },
    /// It ends too early.
    #[error("it is cut short")]
    Truncated,
    /// Its key, its place or its content is not the one it was sealed with.
    #[error("it was not sealed so: content, place or key differ")]
    Refused,
    /// What should be sealed is larger than a record can be.
    #[error("it is too large to seal")]
    TooLarge,
}

/// An opened record.
pub struct Opened {
    /// The clear header, now known to be genuine.
    pub header: Vec<u8>,
    /// The content; wiped on drop.
    pub plaintext: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("plaintext", &"***").finish_non_exhaustive()
    }
}

/// Seals and opens records.
#[derive(Debug)]
pub struct Vault {
    keyring: Keyring,
    entropy: Arc<dyn Entropy>,
}

impl Vault {
    /// A vault over `keyring`; nonces are drawn from `entropy`.
    pub fn new(keyring: Keyring, entropy: Arc<dyn Entropy>) -> Self {
        Self { keyring, entropy }
    }

    /// Seals `plaintext` with the active key, for this place only. `header` stays readable.
    pub fn seal(
        &self,
        table: Table,
        key: &RecordKey,
        header: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let id = self.keyring.active();
        let sealing = self.keyring.key(id).ok_or_else(|| SealError::UnknownKey { id: id.to_owned() })?;
        let mut nonce = [0u8; NONCE_LENGTH];
        self.entropy.fill(&mut nonce);

        let id_length = u8::try_from(id.len()).map_err(|_| SealError::TooLarge)?;
        let header_length = u32::try_from(header.len()).map_err(|_| SealError::TooLarge)?;
        let clear = MAGIC.len() + 1 + 1 + id.len() + 4 + header.len() + NONCE_LENGTH;
        // Of the final size from the start: growing would leave copies of the plaintext behind.
        let mut sealed = Vec::with_capacity(clear + plaintext.len() + TAG_LENGTH);
        sealed.extend_from_slice(MAGIC);
        sealed.push(XCHACHA20_POLY1305);
        sealed.push(id_length);
        sealed.extend_from_slice(id.as_bytes());
        sealed.extend_from_slice(&header_length.to_be_bytes());
        sealed.extend_from_slice(header);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);

        let aad = associated_data(XCHACHA20_POLY1305, id.as_bytes(), table, key, header);
        let content = sealed.get_mut(clear..).ok_or(SealError::TooLarge)?;
        let tag = cipher(sealing)
            .encrypt_in_place_detached(XNonce::from_slice(&nonce), &aad, content)
            .map_err(|_| SealError::TooLarge)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens a record that was sealed for this place.
    pub fn open(&self, table: Table, key: &RecordKey, sealed: &[u8]) -> Result<Opened, SealError> {
        let parts = Parts::read(sealed)?;
        let id = std::str::from_utf8(parts.key_id).map_err(|_| SealError::UnknownFormat)?;
        let sealing = self.keyring.key(id).ok_or_else(|| SealError::UnknownKey { id: id.to_owned() })?;
        let aad = associated_data(parts.algorithm, parts.key_id, table, key, parts.header);
        let mut plaintext = Zeroizing::new(parts.ciphertext.to_vec());
        cipher(sealing)
            .decrypt_in_place_detached(
                XNonce::from_slice(parts.nonce),
                &aad,
                &mut plaintext,
                Tag::from_slice(parts.tag),
            )
            .map_err(|_| SealError::Refused)?;
        Ok(Opened { header: parts.header.to_vec(), plaintext })
    }

    /// Checks at start-up, before anything is served, that the configured keys are those of the
    /// store, and leaves a check for an active key that is new to it.
    ///
    /// [`StoreError::Keys`] if a key of the store is not configured or has other bytes, or if the
    /// store has records and no check; nothing is changed then.
    pub async fn verify(&self, store: &dyn TokenStore) -> Result<(), StoreError> {
        let mut active_is_known = false;
        let mut checks = 0usize;
        let mut after = None;
        loop {
            let page = store.scan(Table::Meta, CHECK_PREFIX.to_vec(), after.take(), CHECK_PAGE).await?;
            for (key, record) in &page {
                let id = key.0.strip_prefix(CHECK_PREFIX).and_then(|id| std::str::from_utf8(id).ok());
                let id = id.ok_or_else(|| StoreError::Damaged {
                    table: Table::Meta,
                    key: key.to_string(),
                    cause: "a key check with an unreadable name".into(),
                })?;
                self.verify_check(id, key, &record.value)?;
                active_is_known |= id == self.keyring.active();
            }
            checks += page.len();
            match page.into_iter().last() {
                Some((last, _)) => after = Some(last),
                None => break,
            }
        }
        if checks == 0 {
            for table in [Table::Connection, Table::Flow, Table::ConnectSession] {
                if !store.scan(table, Vec::new(), None, 1).await?.is_empty() {
                    return Err(StoreError::Keys(
                        "the token store has records but no key check: it was not written by this program, \
                         or is damaged. Restore it from a backup, or name an empty store"
                            .into(),
                    ));
                }
            }
        }
        if active_is_known { Ok(()) } else { self.leave_check(store).await }
    }

    fn verify_check(&self, id: &str, key: &RecordKey, sealed: &[u8]) -> Result<(), StoreError> {
        let problem = match self.open(Table::Meta, key, sealed) {
            Ok(opened) if *opened.plaintext == CHECK_TEXT => return Ok(()),
            Ok(_) => "its key check has a strange content; restore the store from a backup".to_owned(),
            Err(SealError::UnknownKey { id: sealing }) if sealing == id => format!(
                "it is not configured. Add it under store.encryption.keys (it need not be active), or its \
                 records cannot be opened; configured are: {}",
                self.keyring.ids().collect::<Vec<_>>().join(", ")
            ),
            Err(SealError::Refused) => {
                "it is configured with other bytes than the store was sealed with. Configure the key it had; \
                 a new key needs a new id"
                    .to_owned()
            }
            Err(error) => format!("its key check cannot be read: {error}; restore the store from a backup"),
        };
        Err(StoreError::Keys(format!("the token store needs encryption key {id:?}: {problem}")))
    }

    async fn leave_check(&self, store: &dyn TokenStore) -> Result<(), StoreError> {
        let id = self.keyring.active();
        let key = RecordKey([CHECK_PREFIX, id.as_bytes()].concat());
        let value = self
            .seal(Table::Meta, &key, &[], CHECK_TEXT)
            .map_err(|error| StoreError::Keys(format!("encryption key {id:?}: {error}")))?;
        let write =
            Write { table: Table::Meta, key: key.clone(), value: Some(value), expected: Expected::Absent };
        match store.commit(vec![write]).await?.first() {
            Some(WriteOutcome::Written(_)) => Ok(()),
            // Another replica left its check in the meantime: it must be of the same key.
            Some(WriteOutcome::Conflict(_)) => match store.load(Table::Meta, key.clone()).await? {
                Some(record) => self.verify_check(id, &key, &record.value),
                None => Err(StoreError::Unavailable("a key check came and went; start again".into())),
            },
            None => Err(StoreError::Unavailable("the backend gave no outcome for a write".into())),
        }
    }
}

fn cipher(key: &SealingKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.bytes().into())
}

/// Every part with its length before it, so that no two sets of parts give the same bytes.
fn associated_data(algorithm: u8, key_id: &[u8], table: Table, key: &RecordKey, header: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 7] = [DOMAIN, MAGIC, &[algorithm], key_id, table.name().as_bytes(), &key.0, header];
    let mut data = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

/// A sealed record taken apart; nothing in it is trusted yet.
struct Parts<'a> {
    algorithm: u8,
    key_id: &'a [u8],
    header: &'a [u8],
    nonce: &'a [u8],
    ciphertext: &'a [u8],
    tag: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(sealed: &'a [u8]) -> Result<Self, SealError> {
        let rest = sealed.strip_prefix(MAGIC).ok_or(SealError::UnknownFormat)?;
        let (&[algorithm], rest) = rest.split_first_chunk().ok_or(SealError::Truncated)?;
        if algorithm != XCHACHA20_POLY1305 {
            return Err(SealError::UnknownAlgorithm(algorithm));
        }
        let (&[id_length], rest) = rest.split_first_chunk().ok_or(SealError::Truncated)?;
        let (key_id, rest) = rest.split_at_checked(usize::from(id_length)).ok_or(SealError::Truncated)?;
        let (header_length, rest) = rest.split_first_chunk().ok_or(SealError::Truncated)?;
        let header_length =
            usize::try_from(u32::from_be_bytes(*header_length)).map_err(|_| SealError::Truncated)?;
        let (header, rest) = rest.split_at_checked(header_length).ok_or(SealError::Truncated)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LENGTH).ok_or(SealError::Truncated)?;
        let body = rest.len().checked_sub(TAG_LENGTH).ok_or(SealError::Truncated)?;
        let (ciphertext, tag) = rest.split_at(body);
        Ok(Self { algorithm, key_id, header, nonce, ciphertext, tag })
    }
}
