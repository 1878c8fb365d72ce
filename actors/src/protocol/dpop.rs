//! Demonstrating proof of possession (RFC 9449): a key that tokens are bound to, and the proof that
//! goes with every request.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;
use url::{Position, Url};
use zeroize::Zeroizing;

use super::signing_key::{KeyError, SignatureAlgorithm, SigningKey};
use super::state::random_token;
use super::strict_json;
use crate::clock::{Entropy, Timestamp};

/// Carries the proof (section 4.1).
pub const DPOP: HeaderName = HeaderName::from_static("dpop");
/// Carries the nonce that the next proof must have (section 8).
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// The error code of a server that wants a nonce, or another one (sections 8 and 9).
const USE_NONCE: &str = "use_dpop_nonce";

/// Algorithms that proofs can be signed with. `ES256` is what every server knows.
pub const ALGORITHMS: [SignatureAlgorithm; 3] =
    [SignatureAlgorithm::Es256, SignatureAlgorithm::Es384, SignatureAlgorithm::EdDsa];

/// Servers whose nonces are kept at one place.
const MAX_SERVERS: usize = 16;
/// Longest nonce that is kept, in bytes.
const MAX_NONCE: usize = 1024;

/// A key pair that the tokens of one connection are bound to. Cloning shares it.
///
/// Its `Serialize` writes the private key: for records that are sealed before they leave memory.
#[derive(Clone)]
pub struct DpopKey(Arc<Inner>);

struct Inner {
    key: SigningKey,
    /// The proofs' JOSE header, the same for all, encoded and with its dot.
    header: String,
}

/// What one proof is for (section 4.2).
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// `htm`: the request's method.
    pub method: &'a str,
    /// `htu`: the request's URL without query and fragment.
    pub url: &'a str,
    /// `nonce`: what the server wants to see again.
    pub nonce: Option<&'a str>,
    /// `ath`: hash of the access token that is sent with it.
    pub access_token: Option<&'a AccessTokenHash>,
}

/// `ath`: the access token's SHA-256 in base64url (section 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTokenHash(String);

impl AccessTokenHash {
    /// The hash of this token.
    pub fn of(access_token: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, access_token.as_bytes())))
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    jti: &'a str,
    htm: &'a str,
    htu: &'a str,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
}

impl DpopKey {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::Internal`].
    pub fn generate(algorithm: SignatureAlgorithm) -> Result<Self, KeyError> {
        SigningKey::generate(algorithm).map(Self::of)
    }

    fn of(key: SigningKey) -> Self {
        let header = json!({ "typ": "dpop+jwt", "alg": key.algorithm().name(), "jwk": key.bare_jwk() });
        let header = URL_SAFE_NO_PAD.encode(header.to_string()) + ".";
        Self(Arc::new(Inner { key, header }))
    }

    /// What it signs with.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.0.key.algorithm()
    }

    /// Its JWK thumbprint: `jkt`, and `dpop_jkt` of authorization requests (sections 6.1 and 10).
    pub fn thumbprint(&self) -> &str {
        self.0.key.thumbprint()
    }

    /// A proof for one request, as the value of its `DPoP` header. None is ever used twice.
    ///
    /// # Errors
    /// [`KeyError::Internal`].
    pub fn prove(
        &self,
        proof: Proof<'_>,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<HeaderValue, KeyError> {
        let id = random_token(entropy);
        let claims = Claims {
            jti: id.expose(),
            htm: proof.method,
            htu: proof.url,
            iat: now.as_millis() / 1000,
            ath: proof.access_token.map(|hash| hash.0.as_str()),
            nonce: proof.nonce,
        };
        let claims = serde_json::to_vec(&claims).map_err(|_| KeyError::Internal)?;
        let mut jws = String::with_capacity(self.0.header.len() + claims.len() * 4 / 3 + 96);
        jws.push_str(&self.0.header);
        URL_SAFE_NO_PAD.encode_string(claims, &mut jws);
        let signature = self.0.key.sign(jws.as_bytes())?;
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
        let mut value = HeaderValue::try_from(jws).map_err(|_| KeyError::Internal)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// `htu` of a request to `url`: without query and fragment, otherwise exactly as it is.
pub fn htu(url: &Url) -> &str {
    &url[..Position::AfterPath]
}

impl fmt::Debug for DpopKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DpopKey({})", self.thumbprint())
    }
}

/// The same private key.
impl PartialEq for DpopKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for DpopKey {}

impl Serialize for DpopKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let der = self.0.key.to_pkcs8().map_err(serde::ser::Error::custom)?;
        Zeroizing::new(URL_SAFE_NO_PAD.encode(der.expose())).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DpopKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let damaged = || serde::de::Error::custom("the DPoP key is damaged");
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let der = Zeroizing::new(URL_SAFE_NO_PAD.decode(text.as_bytes()).map_err(|_| damaged())?);
        SigningKey::load(&der, None, None).map(Self::of).map_err(|_| damaged())
    }
}

/// The newest nonce of each server, for a bounded number of servers.
#[derive(Debug, Default)]
pub struct Nonces(Mutex<Vec<(String, Arc<str>)>>);

impl Nonces {
    /// What the next proof for `origin` must have, if that is known.
    pub fn get(&self, origin: &str) -> Option<Arc<str>> {
        self.0.lock().iter().find(|(known, _)| known == origin).map(|(_, nonce)| nonce.clone())
    }

    /// Keeps the nonce in an answer of `origin`, if there is a proper one (section 8.2).
    pub fn remember(&self, origin: &str, answer: &HeaderMap) {
        let mut values = answer.get_all(DPOP_NONCE).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return };
        // Section 8.1: the characters of RFC 6749 appendix A's NQCHAR, without space.
        let is_proper = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        let proper = (1..=MAX_NONCE).contains(&value.len()) && value.as_bytes().iter().all(is_proper);
        let Some(nonce) = value.to_str().ok().filter(|_| proper) else { return };
        let mut known = self.0.lock();
        if let Some((_, old)) = known.iter_mut().find(|(known, _)| known == origin) {
            if **old != *nonce {
                *old = nonce.into();
            }
            return;
        }
        if known.len() == MAX_SERVERS {
            known.remove(0);
        }
        known.push((origin.to_owned(), nonce.into()));
    }
}

/// Whether an answer of an authorization server refuses a request only for want of the nonce that it
/// brings (section 8).
pub fn wants_nonce(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> bool {
    let refused = matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED);
    refused
        && headers.contains_key(DPOP_NONCE)
        && strict_json::object(body)
            .is_ok_and(|members| members.get("error").and_then(|error| error.as_str()) == Some(USE_NONCE))
}

/// As [`wants_nonce`], for an answer of a resource server (section 9).
pub fn resource_wants_nonce(status: StatusCode, headers: &HeaderMap) -> bool {
    let challenged = |value: &HeaderValue| {
        let text = value.as_bytes().to_ascii_lowercase();
        let has = |what: &[u8]| text.windows(what.len()).any(|window| window == what);
        has(b"dpop") && has(USE_NONCE.as_bytes())
    };
    status == StatusCode::UNAUTHORIZED
        && headers.contains_key(DPOP_NONCE)
        && headers.get_all(http::header::WWW_AUTHENTICATE).iter().any(challenged)
}

#[cfg(test)]
mod tests;
