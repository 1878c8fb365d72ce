//! API keys in `X-Api-Key`, known by their SHA-256.
//!
//! Unlike a password, a key is made by a machine and too long to be guessed, so a plain digest
//! protects it. Keys are looked up under a keyed digest, which tells nothing by the time it takes, and
//! then compared in constant time.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use actix_web::http::header::HeaderName;
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use claviger_actors::clock::{Entropy, SystemEntropy, Timestamp};
use claviger_actors::protocol::secret::Secret;
use claviger_actors::transport::Transport;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Caller, CallerAuth, ConfiguredCaller, Presented, Recalled, Remembered};

/// The header that brings a key.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What a caller without a valid key is told, where nothing else is taken.
const CHALLENGE: &str = "ApiKey realm=\"claviger\", header=\"X-Api-Key\"";
/// Longest key looked at, in bytes.
const MAX_KEY: usize = 1024;
const PREFIX: &str = "sha256:";

type Digest = [u8; 32];

/// The SHA-256 of an API key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiKeyHash(Digest);

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash(***)")
    }
}

/// The text is no hash of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "must be `sha256:` and the key's SHA-256 in hexadecimal or base64; make one with \
     `claviger hash-secret --api-key`"
)]
pub struct ApiKeyHashError;

impl ApiKeyHash {
    /// Reads `sha256:` and 32 bytes in hexadecimal or in base64 of either alphabet.
    ///
    /// # Errors
    /// [`ApiKeyHashError`].
    pub fn parse(text: &str) -> Result<Self, ApiKeyHashError> {
        const ANY_PADDING: GeneralPurposeConfig =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
        const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);
        let text = text.trim().strip_prefix(PREFIX).ok_or(ApiKeyHashError)?;
        if text.len() == 64
            && let Some(digest) = hexadecimal(text)
        {
            return Ok(Self(digest));
        }
        let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).map_err(|_| ApiKeyHashError)?;
        bytes.try_into().map(Self).map_err(|_| ApiKeyHashError)
    }

    fn of(key: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
        Self(bytes)
    }
}

fn hexadecimal(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(digest)
}

/// The hash of `key` as a configuration takes it: `sha256:` and hexadecimal digits.
pub fn hash_api_key(key: &Secret) -> String {
    use std::fmt::Write as _;
    ApiKeyHash::of(key.expose().as_bytes()).0.iter().fold(PREFIX.to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Sets the method up for the callers that have an API key.
pub(super) fn build(
    callers: &[(Arc<Caller>, ConfiguredCaller)],
    _: &Arc<dyn Transport>,
    _: &Arc<Remembered>,
) -> Option<Box<dyn CallerAuth>> {
    let mut key = Zeroizing::new([0u8; 32]);
    SystemEntropy.fill(&mut *key);
    let index = hmac::Key::new(hmac::HMAC_SHA256, &*key);
    let holders: HashMap<_, _> = callers
        .iter()
        .filter_map(|(caller, configured)| Some((configured.api_key?, caller.clone())))
        .map(|(hash, caller)| (place(&index, hash), (hash, caller)))
        .collect();
    (!holders.is_empty()).then(|| Box::new(ApiKeys { index, holders }) as Box<dyn CallerAuth>)
}

fn place(index: &hmac::Key, hash: ApiKeyHash) -> Digest {
    let mut place = [0; 32];
    place.copy_from_slice(hmac::sign(index, &hash.0).as_ref());
    place
}

struct ApiKeys {
    index: hmac::Key,
    holders: HashMap<Digest, (ApiKeyHash, Arc<Caller>)>,
}

impl CallerAuth for ApiKeys {
    fn challenge(&self) -> &'static str {
        CHALLENGE
    }

    fn is_last_resort(&self) -> bool {
        true
    }

    fn recall(&self, presented: Presented<'_>, _: Timestamp) -> Recalled {
        let mut values = presented.headers.get_all(X_API_KEY);
        let key = match (values.next(), values.next()) {
            (None, _) => return Recalled::NotPresented,
            (Some(key), None) if key.len() <= MAX_KEY => key.as_bytes(),
            _ => return Recalled::Refused,
        };
        let presented = ApiKeyHash::of(key);
        match self.holders.get(&place(&self.index, presented)) {
            Some((hash, caller)) if bool::from(hash.0.ct_eq(&presented.0)) => {
                Recalled::Accepted(caller.clone().into())
            }
            _ => Recalled::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::collections::BTreeSet;

    use actix_web::http::header::{HeaderMap, HeaderValue};
    use claviger_actors::protocol::identifiers::CallerId;

    use super::super::jwt::tests::no_transport;
    use super::super::{CallerAuthError, CallerDirectory};
    use super::*;

    /// SHA-256 of `abc` (FIPS 180-2 appendix B.1).
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn caller(name: &str, key: &str) -> ConfiguredCaller {
        let id = CallerId::new(name).unwrap();
        let caller = Caller { id, routes: BTreeSet::new(), may_name_subject: false, rate: None };
        let hash = ApiKeyHash::parse(&hash_api_key(&Secret::new(key))).unwrap();
        ConfiguredCaller { api_key: Some(hash), ..ConfiguredCaller::new(caller) }
    }

    fn headers(keys: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for key in keys {
            headers.append(X_API_KEY, HeaderValue::from_str(key).unwrap());
        }
        headers
    }

    async fn who(directory: &CallerDirectory, headers: &HeaderMap) -> Result<String, CallerAuthError> {
        let now = Timestamp::from_secs(1_800_000_000);
        directory.authenticate(headers.into(), now).await.map(|found| found.caller.id.to_string())
    }

    #[test]
    fn a_hash_is_read_in_hexadecimal_and_in_base64() {
        assert_eq!(hash_api_key(&Secret::new("abc")), ABC);
        let same = [
            ABC.to_owned(),
            format!("sha256:{}", ABC[7..].to_uppercase()),
            "sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned(),
            " sha256:ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0\n".to_owned(),
        ];
        for text in same {
            assert_eq!(ApiKeyHash::parse(&text), Ok(ApiKeyHash::of(b"abc")), "{text}");
        }
        for text in ["", "abc", "sha256:", "sha256:abc", "sha512:00", &ABC[7..], &ABC[..70], "sha256:zz"] {
            assert_eq!(ApiKeyHash::parse(text), Err(ApiKeyHashError), "{text}");
        }
    }

    #[actix_web::test]
    async fn a_key_names_its_caller_and_no_other_does() {
        let directory =
            CallerDirectory::new([caller("billing", "key-1"), caller("crm", "key-2")], &no_transport());
        assert_eq!(who(&directory, &headers(&["key-1"])).await.as_deref(), Ok("billing"));
        assert_eq!(who(&directory, &headers(&["key-2"])).await.as_deref(), Ok("crm"));
        assert_eq!(who(&directory, &HeaderMap::new()).await, Err(CallerAuthError::Absent));
        let long = "k".repeat(MAX_KEY + 1);
        for wrong in [&["key-3"][..], &[""], &["key-1", "key-1"], &["key-1", "key-2"], &[&ABC[7..]], &[&long]]
        {
            assert_eq!(who(&directory, &headers(wrong)).await, Err(CallerAuthError::Refused), "{wrong:?}");
        }
    }

    #[actix_web::test]
    async fn where_only_keys_are_taken_the_challenge_says_so() {
        let directory = CallerDirectory::new([caller("billing", "key-1")], &no_transport());
        assert_eq!(directory.challenges(), [CHALLENGE]);
    }
}
