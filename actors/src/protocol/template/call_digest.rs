//! Tells apart, in a subject, calls that bring along different values for a token request.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::identifiers::{NameError, Subject};

/// Bytes of a digest: 128 bits.
const LENGTH: usize = 16;

/// Between a subject and the digest of what the call brought along.
const SEPARATOR: char = '~';

/// A keyed digest (HMAC-SHA256) of the values that a call brings along for a token request: a token is
/// used again only for calls with the same ones. Keyed, because it is shown and values may be guessed.
#[derive(Clone)]
pub struct CallDigest(hmac::Key);

impl CallDigest {
    /// Digests under `key`. The same key must be given after a restart, or every such token is
    /// obtained anew.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// `subject`, told apart by `values`: `alice~` and the digest. `values` are names and values in an
    /// order of their own.
    ///
    /// # Errors
    /// [`NameError::TooLong`] if no room is left for the digest.
    pub fn tell_apart<'v>(
        &self,
        subject: &Subject,
        values: impl IntoIterator<Item = (&'v str, &'v str)>,
    ) -> Result<Subject, NameError> {
        let mut context = hmac::Context::with_key(&self.0);
        // Lengths first, so that no value can pass for the beginning of another.
        let mut add = |text: &str| {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        };
        add(subject.as_str());
        for (name, value) in values {
            add(name);
            add(value);
        }
        let tag = context.sign();
        let digest = URL_SAFE_NO_PAD.encode(tag.as_ref().get(..LENGTH).unwrap_or_default());
        Subject::new(&format!("{subject}{SEPARATOR}{digest}"))
    }
}

impl fmt::Debug for CallDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallDigest(***)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn key(subject: &str, values: &[(&str, &str)]) -> String {
        let subject = Subject::new(subject).unwrap();
        let digest = CallDigest::new(&[7; 32]);
        digest.tell_apart(&subject, values.iter().copied()).unwrap().as_str().to_owned()
    }

    #[test]
    fn equal_values_give_equal_keys_and_no_others_do() {
        let one = key("alice", &[("a", "1"), ("b", "2")]);
        assert_eq!(one, key("alice", &[("a", "1"), ("b", "2")]));
        assert!(one.starts_with("alice~") && one.len() == "alice~".len() + 22, "{one}");
        for other in [
            key("alice", &[("a", "1"), ("b", "3")]),
            key("alice", &[("a", "2"), ("b", "1")]),
            key("alice", &[("a", "1b"), ("", "2")]),
            key("alice", &[("a", "1")]),
            key("alice", &[]),
            key("bob", &[("a", "1"), ("b", "2")]),
        ] {
            assert_ne!(one, other);
        }
        let foreign = CallDigest::new(&[8; 32]).tell_apart(&Subject::new("alice").unwrap(), [("a", "1")]);
        assert_ne!(foreign.unwrap().as_str(), key("alice", &[("a", "1")]), "it is keyed");
    }

    #[test]
    fn a_subject_must_leave_room() {
        let long = Subject::new(&"x".repeat(233)).unwrap();
        assert_eq!(CallDigest::new(&[7; 32]).tell_apart(&long, []), Err(NameError::TooLong));
    }
}
