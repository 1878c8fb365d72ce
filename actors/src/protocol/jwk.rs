//! Verification keys of an authorization server (RFC 7517), reduced to what can verify.

use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};
use thiserror::Error;

use super::strict_json::{self, StrictJsonError};

/// More keys than this are not one server's.
pub const MAX_KEYS: usize = 100;

/// An asymmetric signature algorithm and the key it needs (RFC 7518 section 3.1, RFC 8037).
#[derive(Debug)]
pub struct SignatureAlgorithm {
    /// Its IANA name.
    pub name: &'static str,
    pub(super) algorithm: Algorithm,
    kty: &'static str,
    crv: Option<&'static str>,
}

/// Every algorithm that may sign an ID token. `none` and the `HS` family are not among them: a
/// public key must never serve as a shared secret (RFC 8725 section 2.1).
pub const ALGORITHMS: [SignatureAlgorithm; 9] = [
    algorithm("RS256", Algorithm::RS256, "RSA", None),
    algorithm("RS384", Algorithm::RS384, "RSA", None),
    algorithm("RS512", Algorithm::RS512, "RSA", None),
    algorithm("PS256", Algorithm::PS256, "RSA", None),
    algorithm("PS384", Algorithm::PS384, "RSA", None),
    algorithm("PS512", Algorithm::PS512, "RSA", None),
    algorithm("ES256", Algorithm::ES256, "EC", Some("P-256")),
    algorithm("ES384", Algorithm::ES384, "EC", Some("P-384")),
    algorithm("EdDSA", Algorithm::EdDSA, "OKP", Some("Ed25519")),
];

const fn algorithm(
    name: &'static str,
    algorithm: Algorithm,
    kty: &'static str,
    crv: Option<&'static str>,
) -> SignatureAlgorithm {
    SignatureAlgorithm { name, algorithm, kty, crv }
}

/// The algorithm of that name, if ID tokens may be signed with it.
pub fn find_algorithm(name: &str) -> Option<&'static SignatureAlgorithm> {
    ALGORITHMS.iter().find(|known| known.name == name)
}

/// Why a key set is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JwkSetError {
    /// The document cannot be read.
    #[error("the key set {0}")]
    Document(#[from] StrictJsonError),
    /// No array `keys` (RFC 7517 section 5.1).
    #[error("the key set has no array named keys")]
    NoKeys,
    /// More than [`MAX_KEYS`].
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooMany,
}

/// One key that can verify signatures.
#[derive(Clone, Debug)]
pub struct VerificationKey {
    kid: Option<String>,
    kty: &'static str,
    crv: Option<&'static str>,
    alg: Option<String>,
    pub(super) key: DecodingKey,
}

impl VerificationKey {
    /// Whether its own attributes let it verify `algorithm`.
    fn suits(&self, algorithm: &SignatureAlgorithm) -> bool {
        self.kty == algorithm.kty
            && self.crv == algorithm.crv
            && self.alg.as_deref().is_none_or(|alg| alg == algorithm.name)
    }
}

/// The verification keys of one key set.
#[derive(Clone, Debug, Default)]
pub struct JwkSetView {
    keys: Vec<VerificationKey>,
}

impl JwkSetView {
    /// Reads a key set. Keys for encryption, secret keys, and keys of unknown or broken form are
    /// left out (RFC 7517 section 5).
    pub fn parse(body: &[u8]) -> Result<Self, JwkSetError> {
        let members = strict_json::object(body)?;
        let keys = members.get("keys").and_then(Value::as_array).ok_or(JwkSetError::NoKeys)?;
        if keys.len() > MAX_KEYS {
            return Err(JwkSetError::TooMany);
        }
        Ok(Self { keys: keys.iter().filter_map(Value::as_object).filter_map(verification_key).collect() })
    }

    /// How many keys can verify anything.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can verify anything.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that may have signed with `algorithm`: those named `kid`, or all if none is named.
    /// Several keys may have one name (FAPI 2.0 section 5.4.3); their attributes decide.
    pub(super) fn candidates<'k>(
        &'k self,
        kid: Option<&'k str>,
        algorithm: &'k SignatureAlgorithm,
    ) -> impl Iterator<Item = &'k VerificationKey> {
        self.keys
            .iter()
            .filter(move |key| kid.is_none_or(|kid| key.kid.as_deref() == Some(kid)))
            .filter(move |key| key.suits(algorithm))
    }
}

fn verification_key(members: &Map<String, Value>) -> Option<VerificationKey> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    if let Some(operations) = members.get("key_ops").and_then(Value::as_array)
        && !operations.iter().any(|operation| operation == "verify")
    {
        return None;
    }
    let (kty, crv, key) = match (text("kty")?, text("crv")) {
        ("RSA", _) => ("RSA", None, DecodingKey::from_rsa_components(text("n")?, text("e")?).ok()?),
        ("EC", Some("P-256")) => ("EC", Some("P-256"), ec_point(text("x")?, text("y")?)?),
        ("EC", Some("P-384")) => ("EC", Some("P-384"), ec_point(text("x")?, text("y")?)?),
        ("OKP", Some("Ed25519")) => {
            ("OKP", Some("Ed25519"), DecodingKey::from_ed_components(text("x")?).ok()?)
        }
        _ => return None,
    };
    Some(VerificationKey {
        kid: text("kid").map(str::to_owned),
        kty,
        crv,
        alg: text("alg").map(str::to_owned),
        key,
    })
}

fn ec_point(x: &str, y: &str) -> Option<DecodingKey> {
    DecodingKey::from_ec_components(x, y).ok()
}
