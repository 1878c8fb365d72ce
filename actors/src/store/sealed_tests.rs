#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use proptest::prelude::*;

use super::keyring::{Keyring, SealingKey};
use super::memory::MemoryStore;
use super::sealed::{SealError, Vault};
use super::*;
use crate::clock::{Entropy, SystemEntropy};
use crate::protocol::secret::Secret;

fn vault(active: &str, keys: &[(&str, u8)]) -> Vault {
    let key = |fill: u8| SealingKey::from_base64(&Secret::new(STANDARD.encode([fill; 32]))).unwrap();
    let keys: BTreeMap<_, _> = keys.iter().map(|(id, fill)| ((*id).to_owned(), key(*fill))).collect();
    Vault::new(Keyring::new(active, keys).unwrap(), Arc::new(SystemEntropy))
}

fn key(text: &str) -> RecordKey {
    RecordKey(text.as_bytes().to_vec())
}

/// Vector of draft-irtf-cfrg-xchacha-03, appendix A.3.1.
#[test]
fn the_cipher_is_xchacha20_poly1305() {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let key: Vec<u8> = (0x80..=0x9f).collect();
    let nonce: Vec<u8> = (0x40..=0x57).collect();
    let message = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
                    future, sunscreen would be it.";
    let sealed = XChaCha20Poly1305::new_from_slice(&key)
        .unwrap()
        .encrypt(XNonce::from_slice(&nonce), Payload { msg: message, aad: &hex("50515253c0c1c2c3c4c5c6c7") })
        .unwrap();
    let expected = "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39\
                    ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
                    21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49";
    assert_eq!(sealed, hex(expected));
}

#[derive(Debug)]
struct FixedEntropy(u8);

impl Entropy for FixedEntropy {
    fn fill(&self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

/// The record format, built here by hand: what is in a store today must open for ever.
#[test]
fn the_record_format_is_the_documented_one() {
    let sealing = SealingKey::from_base64(&Secret::new(STANDARD.encode([7; 32]))).unwrap();
    let ring = Keyring::new("k1", BTreeMap::from([("k1".to_owned(), sealing)])).unwrap();
    let vault = Vault::new(ring, Arc::new(FixedEntropy(9)));
    let sealed = vault.seal(Table::Connection, &key("p\0s"), b"head", b"content").unwrap();

    let mut aad = Vec::new();
    let parts: [&[u8]; 7] =
        [b"claviger token store record", b"CLV1", &[1], b"k1", b"connection", b"p\0s", b"head"];
    for part in parts {
        aad.extend_from_slice(&(part.len() as u64).to_be_bytes());
        aad.extend_from_slice(part);
    }
    let mut expected = b"CLV1\x01\x02k1\0\0\0\x04head".to_vec();
    expected.extend_from_slice(&[9; 24]);
    let cipher = XChaCha20Poly1305::new_from_slice(&[7; 32]).unwrap();
    let payload = Payload { msg: b"content", aad: &aad };
    expected.extend(cipher.encrypt(XNonce::from_slice(&[9; 24]), payload).unwrap());
    assert_eq!(sealed, expected);
}

#[test]
fn no_changed_bit_opens() {
    let vault = vault("k1", &[("k1", 1), ("k2", 1)]);
    let sealed = vault.seal(Table::Connection, &key("p\0s"), b"[\"https://api\"]", b"a token set").unwrap();
    let open = |bytes: &[u8]| vault.open(Table::Connection, &key("p\0s"), bytes);
    let opened = open(&sealed).unwrap();
    assert_eq!(
        (opened.header.as_slice(), opened.plaintext.as_slice()),
        (&b"[\"https://api\"]"[..], &b"a token set"[..])
    );
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1 << bit;
            assert!(open(&flipped).is_err(), "bit {bit} of byte {at}");
        }
    }
    // `k2` has the very same bytes as `k1`: the id itself is bound.
    let relabelled: Vec<u8> = [&sealed[..7], b"2", &sealed[8..]].concat();
    assert_eq!(open(&relabelled).unwrap_err(), SealError::Refused);
    for length in 0..sealed.len() {
        assert!(open(&sealed[..length]).is_err(), "cut to {length}");
    }
    assert!(open(&[sealed.as_slice(), b"x"].concat()).is_err(), "with a byte more");
}

#[test]
fn a_record_opens_in_its_own_place_only() {
    let vault = vault("k1", &[("k1", 1)]);
    let seal = |table, name: &str| vault.seal(table, &key(name), b"", b"content").unwrap();
    let alice = seal(Table::Connection, "p\0alice");
    for (table, name) in [
        (Table::Connection, "p\0bob"),
        (Table::Connection, "q\0alice"),
        (Table::Connection, ""),
        (Table::Flow, "p\0alice"),
        (Table::Meta, "p\0alice"),
    ] {
        assert_eq!(
            vault.open(table, &key(name), &alice).unwrap_err(),
            SealError::Refused,
            "{table:?} {name:?}"
        );
    }
    assert!(vault.open(Table::Connection, &key("p\0alice"), &alice).is_ok());
}

#[test]
fn what_is_not_understood_is_named_and_never_used() {
    let vault = vault("k1", &[("k1", 1)]);
    let open = |bytes: &[u8]| vault.open(Table::Flow, &key("a"), bytes).unwrap_err();
    assert_eq!(open(b""), SealError::UnknownFormat);
    assert_eq!(open(br#"{"v":1,"record":{}}"#), SealError::UnknownFormat);
    assert_eq!(open(b"CLV2\x01"), SealError::UnknownFormat);
    assert_eq!(open(b"CLV1"), SealError::Truncated);
    assert_eq!(open(b"CLV1\x02\x02k1"), SealError::UnknownAlgorithm(2));
    assert_eq!(open(b"CLV1\x01\x02k1\xff\xff\xff\xff"), SealError::Truncated);
    let other = self::vault("k9", &[("k9", 1)]).seal(Table::Flow, &key("a"), b"", b"x").unwrap();
    assert_eq!(open(&other), SealError::UnknownKey { id: "k9".into() });
    let wrong = self::vault("k1", &[("k1", 2)]).seal(Table::Flow, &key("a"), b"", b"x").unwrap();
    assert_eq!(open(&wrong), SealError::Refused);
}

#[test]
fn older_keys_open_and_only_the_active_one_seals() {
    let old = vault("k1", &[("k1", 1)]).seal(Table::Flow, &key("a"), b"", b"old").unwrap();
    let both = vault("k2", &[("k1", 1), ("k2", 2)]);
    assert_eq!(*both.open(Table::Flow, &key("a"), &old).unwrap().plaintext, b"old");
    let new = both.seal(Table::Flow, &key("a"), b"", b"new").unwrap();
    assert_eq!(*vault("k2", &[("k2", 2)]).open(Table::Flow, &key("a"), &new).unwrap().plaintext, b"new");
}

#[test]
fn nonces_differ_and_no_content_shows() {
    let vault = vault("k1", &[("k1", 1)]);
    let sealed: BTreeSet<_> =
        (0..1000).map(|_| vault.seal(Table::Flow, &key("a"), b"", b"canary-canary").unwrap()).collect();
    assert_eq!(sealed.len(), 1000);
    assert!(sealed.iter().all(|bytes| !bytes.windows(6).any(|window| window == b"canary")));
    let opened = vault.open(Table::Flow, &key("a"), sealed.first().unwrap()).unwrap();
    assert!(!format!("{opened:?} {vault:?}").contains("canary"));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), begin in any::<bool>(),
    ) {
        let vault = vault("k1", &[("k1", 1)]);
        let bytes = if begin { [b"CLV1\x01\x02k1\0\0\0".to_vec(), bytes].concat() } else { bytes };
        prop_assert!(vault.open(Table::Flow, &key("a"), &bytes).is_err());
    }

    #[test]
    fn what_is_sealed_is_opened(header in "\\PC{0,40}", content in proptest::collection::vec(any::<u8>(), 0..300)) {
        let vault = vault("k1", &[("k1", 1)]);
        let sealed = vault.seal(Table::Flow, &key("a"), header.as_bytes(), &content).unwrap();
        let opened = vault.open(Table::Flow, &key("a"), &sealed).unwrap();
        prop_assert_eq!(opened.header, header.as_bytes());
        prop_assert_eq!(&*opened.plaintext, &content);
    }
}

async fn refusal(vault: &Vault, store: &dyn TokenStore) -> String {
    let before = store.scan(Table::Meta, Vec::new(), None, 99).await.unwrap();
    let error = vault.verify(store).await.unwrap_err();
    assert!(matches!(error, StoreError::Keys(_)), "{error:?}");
    assert_eq!(store.scan(Table::Meta, Vec::new(), None, 99).await.unwrap(), before, "nothing is changed");
    error.to_string()
}

#[tokio::test]
async fn keys_are_checked_before_anything_is_served() {
    let store = MemoryStore::default();
    vault("k1", &[("k1", 1)]).verify(&store).await.unwrap();
    vault("k1", &[("k1", 1)]).verify(&store).await.unwrap();

    let wrong = refusal(&vault("k1", &[("k1", 2)]), &store).await;
    assert!(wrong.contains("\"k1\"") && wrong.contains("other bytes"), "{wrong}");
    let missing = refusal(&vault("k2", &[("k2", 2)]), &store).await;
    assert!(missing.contains("\"k1\"") && missing.contains("store.encryption.keys"), "{missing}");

    // A new active key leaves its own check, and from then on both are needed.
    vault("k2", &[("k1", 1), ("k2", 2)]).verify(&store).await.unwrap();
    vault("k1", &[("k1", 1), ("k2", 2)]).verify(&store).await.unwrap();
    assert!(refusal(&vault("k1", &[("k1", 1)]), &store).await.contains("\"k2\""));
    let wrong = refusal(&vault("k1", &[("k1", 1), ("k2", 3)]), &store).await;
    assert!(wrong.contains("\"k2\"") && wrong.contains("other bytes"), "{wrong}");
}

#[tokio::test]
async fn a_store_with_records_and_no_check_is_refused() {
    for table in [Table::Connection, Table::Flow, Table::ConnectSession] {
        let store = MemoryStore::default();
        let write = Write { table, key: key("a"), value: Some(b"x".to_vec()), expected: Expected::Anything };
        store.commit(vec![write]).await.unwrap();
        assert!(refusal(&vault("k1", &[("k1", 1)]), &store).await.contains("no key check"));
    }
}

#[tokio::test]
async fn a_swapped_or_damaged_check_is_refused() {
    let store = MemoryStore::default();
    let both = vault("k1", &[("k1", 1), ("k2", 2)]);
    both.verify(&store).await.unwrap();
    let check = store.scan(Table::Meta, Vec::new(), None, 1).await.unwrap().remove(0).1.value;
    for (name, value) in [("key-check/k2", check.clone()), ("key-check/k1", b"CLV1".to_vec())] {
        let expected = Expected::Anything;
        let write = Write { table: Table::Meta, key: key(name), value: Some(value), expected };
        store.commit(vec![write]).await.unwrap();
        refusal(&both, &store).await;
    }
}
