//! Values that must never be printed: wiped on drop, compared in constant time.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret text. Cloning shares the one copy; the last drop wipes it.
///
/// It has no `Serialize`: what must be stored names [`sealed`] explicitly, and only sealed
/// records do.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes ownership of `text`; no other copy is made.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The text itself. Call it at the last moment and keep no copy.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<&Secret> for Secret {
    fn from(secret: &Secret) -> Self {
        secret.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

/// Secret bytes, such as a key file's. Cloning shares the one copy; the last drop wipes it.
#[derive(Clone)]
pub struct SecretBytes(Arc<Zeroizing<Vec<u8>>>);

impl SecretBytes {
    /// Takes ownership of `bytes`; no other copy is made.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// The bytes themselves. Call it at the last moment and keep no copy.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(***)")
    }
}

/// Bytes that are wiped when the last clone is dropped, for request bodies and header values.
pub fn wiped_bytes(bytes: Vec<u8>) -> Bytes {
    struct Wiped(Zeroizing<Vec<u8>>);
    impl AsRef<[u8]> for Wiped {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Wiped(Zeroizing::new(bytes)))
}

/// `#[serde(with = "secret::sealed")]`: for records that are sealed before they leave memory.
pub mod sealed {
    use super::{Deserialize, Deserializer, Secret, Serialize, Serializer};

    /// Writes the text in clear, into a buffer that will be sealed.
    pub fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        secret.expose().serialize(serializer)
    }

    /// Reads the text back from an opened record.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Sealed(#[serde(with = "sealed")] Secret);

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(
            format!("{:?} {:#?}", Secret::new("s3cr3t"), Secret::new("s3cr3t")),
            "Secret(***) Secret(***)"
        );
    }

    #[test]
    fn secrets_are_equal_by_their_text() {
        assert!(Secret::new("a") == Secret::from("a"));
        assert!(Secret::new("a") != Secret::new("b"));
        assert!(Secret::new("a") != Secret::new("aa"));
    }

    #[test]
    fn a_sealed_record_brings_the_text_back() {
        let text = serde_json::to_string(&Sealed("s3cr3t".into())).unwrap();
        assert_eq!(serde_json::from_str::<Sealed>(&text).unwrap().0.expose(), "s3cr3t");
        assert_eq!(wiped_bytes(b"abc".to_vec()), "abc");
    }
}
