//! The keys that seal records: one is active and seals, the others only open.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::hmac;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::StoreError;
use crate::clock::Entropy;
use crate::protocol::secret::Secret;

/// Length of a sealing key, in bytes.
pub const KEY_LENGTH: usize = 32;

/// Longest key id, in bytes.
pub const MAX_KEY_ID: usize = 64;

/// Longest base64 text looked at: a key has 44 characters.
const MAX_KEY_TEXT: usize = 64;

/// Standard base64, with or without its padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a text is no sealing key. The operator must mend the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is not base64.
    #[error("is not base64; `claviger keys generate` makes a key")]
    NotBase64,
    /// The text is base64 of something shorter or longer.
    #[error("is not {KEY_LENGTH} bytes long; `claviger keys generate` makes a key")]
    WrongLength,
}

/// A key of 256 bits. Wiped on drop, and there is no way to print it.
pub struct SealingKey(Box<Zeroizing<[u8; KEY_LENGTH]>>);

impl SealingKey {
    /// Reads a key: the base64 of exactly [`KEY_LENGTH`] bytes; blanks around it do not count.
    pub fn from_base64(text: &Secret) -> Result<Self, KeyError> {
        let text = text.expose().trim().as_bytes();
        if text.len() > MAX_KEY_TEXT {
            return Err(KeyError::WrongLength);
        }
        let mut decoded = Zeroizing::new([0u8; MAX_KEY_TEXT]);
        let length = LENIENT.decode_slice(text, decoded.as_mut_slice()).map_err(|_| KeyError::NotBase64)?;
        if length != KEY_LENGTH {
            return Err(KeyError::WrongLength);
        }
        let mut key = Box::new(Zeroizing::new([0u8; KEY_LENGTH]));
        key.copy_from_slice(&decoded[..KEY_LENGTH]);
        Ok(Self(key))
    }

    /// Draws a new key and gives its base64 text, for a configuration.
    pub fn generate(entropy: &dyn Entropy) -> Secret {
        let mut bytes = [0u8; KEY_LENGTH];
        entropy.fill(&mut bytes);
        let text = STANDARD.encode(bytes);
        bytes.zeroize();
        Secret::new(text)
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_LENGTH] {
        &self.0
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(***)")
    }
}

/// All configured keys, by id.
#[derive(Debug)]
pub struct Keyring {
    active: String,
    keys: BTreeMap<String, SealingKey>,
}

impl Keyring {
    /// Checks that `active` is one of `keys`, and that each id is fit to be written into a record:
    /// 1 to [`MAX_KEY_ID`] bytes, no control characters.
    pub fn new(active: &str, keys: BTreeMap<String, SealingKey>) -> Result<Self, StoreError> {
        for id in keys.keys() {
            if id.is_empty() || id.len() > MAX_KEY_ID || id.chars().any(char::is_control) {
                return Err(StoreError::Keys(format!(
                    "encryption key id {id:?} is not 1 to {MAX_KEY_ID} bytes without control characters"
                )));
            }
        }
        if !keys.contains_key(active) {
            let known: Vec<_> = keys.keys().map(String::as_str).collect();
            return Err(StoreError::Keys(format!(
                "the active encryption key {active:?} is not among the configured keys ({}); add it under \
                 store.encryption.keys or make another one active",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") },
            )));
        }
        Ok(Self { active: active.to_owned(), keys })
    }

    /// The id of the key that seals.
    pub fn active(&self) -> &str {
        &self.active
    }

    /// All ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// A key for another purpose than sealing, derived from the active one with HMAC-SHA256: the same
    /// for the same purpose as long as that key is active.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; KEY_LENGTH]> {
        // `new` saw to it that the active key is there.
        let key = self.keys.get(&self.active).map_or(&[][..], |key| key.bytes());
        let mut derived = Zeroizing::new([0u8; KEY_LENGTH]);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), purpose.as_bytes());
        derived.copy_from_slice(tag.as_ref());
        derived
    }

    pub(super) fn key(&self, id: &str) -> Option<&SealingKey> {
        self.keys.get(id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn a_generated_key_is_read_back_and_no_two_are_alike() {
        let (one, two) = (SealingKey::generate(&SystemEntropy), SealingKey::generate(&SystemEntropy));
        assert!(one != two);
        let key = SealingKey::from_base64(&one).unwrap();
        assert_eq!(STANDARD.encode(key.bytes()), one.expose());
        let unpadded = Secret::new(format!(" {}\n", one.expose().trim_end_matches('=')));
        assert_eq!(SealingKey::from_base64(&unpadded).unwrap().bytes(), key.bytes());
    }

    #[test]
    fn only_base64_of_32_bytes_is_a_key() {
        let read = |text: &str| SealingKey::from_base64(&Secret::new(text)).map(|_| ()).unwrap_err();
        assert_eq!(read(""), KeyError::WrongLength);
        assert_eq!(read("not base64 at all!"), KeyError::NotBase64);
        assert_eq!(read(&STANDARD.encode([7u8; 31])), KeyError::WrongLength);
        assert_eq!(read(&STANDARD.encode([7u8; 33])), KeyError::WrongLength);
        assert_eq!(read(&"A".repeat(100_000)), KeyError::WrongLength);
    }

    #[test]
    fn a_key_is_never_printed() {
        let text = SealingKey::generate(&SystemEntropy);
        let key = SealingKey::from_base64(&text).unwrap();
        let ring = Keyring::new("k1", BTreeMap::from([("k1".to_owned(), key)])).unwrap();
        assert_eq!(format!("{ring:?}"), r#"Keyring { active: "k1", keys: {"k1": SealingKey(***)} }"#);
    }

    #[test]
    fn a_derived_key_depends_on_key_and_purpose_alone() {
        let ring = |active: &str| {
            let key = |byte: u8| SealingKey::from_base64(&Secret::new(STANDARD.encode([byte; 32]))).unwrap();
            Keyring::new(active, BTreeMap::from([("a".to_owned(), key(1)), ("b".to_owned(), key(2))]))
                .unwrap()
        };
        let derived = ring("a").derive("calls");
        assert_eq!(derived, ring("a").derive("calls"));
        assert_ne!(derived, ring("a").derive("other"));
        assert_ne!(derived, ring("b").derive("calls"));
        assert_ne!(*derived, [0; 32]);
        assert_ne!(*derived, [1; 32]);
    }

    #[test]
    fn the_active_key_must_be_configured_and_ids_must_be_plain() {
        let key = || SealingKey::from_base64(&SealingKey::generate(&SystemEntropy)).unwrap();
        let error = Keyring::new("k2", BTreeMap::from([("k1".to_owned(), key())])).unwrap_err().to_string();
        assert!(error.contains("\"k2\"") && error.contains("(k1)"), "{error}");
        for bad in ["", "a\nb", &"x".repeat(65)] {
            assert!(Keyring::new(bad, BTreeMap::from([(bad.to_owned(), key())])).is_err(), "{bad:?}");
        }
    }
}
