//! ID tokens: signature and claims (OpenID Connect Core 1.0 sections 2, 3.1.3.6 and 3.1.3.7).

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::jwk::{JwkSetView, SignatureAlgorithm, find_algorithm};
use super::printable::printable;
use super::secret::Secret;
use super::strict_json;
use super::token::{AccessToken, IdentityClaims};
use crate::clock::Timestamp;

/// Clocks may differ by this much.
const SKEW: Duration = Duration::from_secs(60);
/// An ID token that was issued earlier than this was not issued for our request.
const OLDEST: Duration = Duration::from_secs(24 * 3600);
const MAX_TOKEN: usize = 64 * 1024;
const MAX_AUDIENCES: usize = 64;

/// What an ID token is held against.
#[derive(Clone, Copy, Debug)]
pub struct IdTokenChecks<'a> {
    /// The issuer; compared as it is.
    pub issuer: &'a str,
    /// Our client identifier, which must be among the audiences.
    pub client_id: &'a str,
    /// The nonce that was sent; `None` if none was, as in a refresh.
    pub nonce: Option<&'a Secret>,
    /// Algorithms pinned by configuration or metadata. `none` and `HS` are refused even if listed.
    pub allowed_algs: &'a [String],
    /// The access token that came with it, for `at_hash`.
    pub access_token: Option<&'a AccessToken>,
    /// The moment of the check.
    pub now: Timestamp,
}

/// Why an ID token is not believed. Always the provider's fault, or a wrong configuration of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdTokenError {
    /// Not a signed JWT in compact form.
    #[error("the ID token is not a signed JWT: {0}")]
    Malformed(&'static str),
    /// Signed with an algorithm that is not pinned. Set `id_token_signing_alg` if it is right.
    #[error("the ID token's algorithm {0:?} is not allowed")]
    Algorithm(String),
    /// No key of the set suits: fetch the set anew, once.
    #[error("the ID token is signed with a key that is not in the key set")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("the ID token's signature is wrong")]
    Signature,
    /// A claim is absent or of the wrong type.
    #[error("the ID token's claim {0} is missing or not of the right type")]
    Claim(&'static str),
    /// Another issuer.
    #[error("the ID token is from the issuer {found:?}, not from {expected:?}")]
    Issuer {
        /// The configured issuer.
        expected: String,
        /// The one in the token.
        found: String,
    },
    /// Made for another client.
    #[error("the ID token is not made for this client")]
    Audience,
    /// Authorized party is another client, or none of several is named.
    #[error("the ID token's azp does not name this client")]
    AuthorizedParty,
    /// It has ended.
    #[error("the ID token has expired")]
    Expired,
    /// Issued in the future or too long ago: compare the clocks.
    #[error("the ID token's iat is more than 60 s in the future or more than a day ago")]
    IssuedAt,
    /// Not the nonce that was sent: an answer to another request.
    #[error("the ID token's nonce is not the one sent")]
    Nonce,
    /// Made for another access token.
    #[error("the ID token's at_hash does not fit the access token")]
    AccessTokenHash,
}

/// The claims of an ID token that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdTokenClaims {
    /// Who issued it.
    pub iss: String,
    /// Whom it is about, unique within the issuer.
    pub sub: String,
    /// Whom it is for.
    pub aud: Vec<String>,
    /// The authorized party.
    pub azp: Option<String>,
    /// When it ends.
    pub exp: Timestamp,
    /// When it was issued.
    pub iat: Timestamp,
    /// When the person logged in.
    pub auth_time: Option<Timestamp>,
}

impl IdTokenClaims {
    /// What is kept with the token set.
    pub fn identity(&self) -> IdentityClaims {
        IdentityClaims { iss: self.iss.clone(), sub: self.sub.clone() }
    }

    /// Whether a refresh's ID token is about the same person (OpenID Connect Core section 12.2).
    pub fn continues(&self, identity: &IdentityClaims) -> bool {
        self.iss == identity.iss && self.sub == identity.sub
    }
}

/// Verifies signature and claims. The header chooses nothing but a key of `keys` and an algorithm
/// of the pinned ones; `jku`, `x5u`, `jwk` and `x5c` are not looked at (RFC 8725 section 3.10).
pub fn verify(
    token: &Secret,
    keys: &JwkSetView,
    checks: &IdTokenChecks<'_>,
) -> Result<IdTokenClaims, IdTokenError> {
    let token = token.expose();
    if token.len() > MAX_TOKEN {
        return Err(IdTokenError::Malformed("it is longer than 64 KiB"));
    }
    let (message, signature) = token.rsplit_once('.').ok_or(NOT_COMPACT)?;
    let (header, claims) = message.split_once('.').ok_or(NOT_COMPACT)?;
    if claims.contains('.') {
        return Err(IdTokenError::Malformed("it is encrypted, or not in compact form"));
    }
    let header = part(header)?;
    let algorithm = pinned(&header, checks)?;
    verify_signature(message, signature, &header, algorithm, keys)?;
    check_claims(&part(claims)?, algorithm, checks)
}

const NOT_COMPACT: IdTokenError = IdTokenError::Malformed("it does not have three parts");

fn part(text: &str) -> Result<Map<String, Value>, IdTokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| IdTokenError::Malformed("a part is not base64url without padding"))?;
    strict_json::object(&bytes).map_err(|_| IdTokenError::Malformed("a part is not a plain JSON object"))
}

fn pinned(
    header: &Map<String, Value>,
    checks: &IdTokenChecks<'_>,
) -> Result<&'static SignatureAlgorithm, IdTokenError> {
    let name = header.get("alg").and_then(Value::as_str).ok_or(IdTokenError::Malformed("it has no alg"))?;
    let algorithm = find_algorithm(name)
        .filter(|_| checks.allowed_algs.iter().any(|allowed| allowed == name))
        .ok_or_else(|| IdTokenError::Algorithm(printable(name, 32)))?;
    if header.contains_key("crit") {
        return Err(IdTokenError::Malformed("it has critical header parameters, and we know none"));
    }
    // RFC 8725 section 3.11: other kinds of JWT from the same issuer have their own `typ`.
    let typ = header.get("typ").and_then(Value::as_str).unwrap_or("JWT").to_ascii_lowercase();
    if typ.ends_with("+jwt") {
        return Err(IdTokenError::Malformed("its typ is that of another kind of token"));
    }
    Ok(algorithm)
}

fn verify_signature(
    message: &str,
    signature: &str,
    header: &Map<String, Value>,
    algorithm: &SignatureAlgorithm,
    keys: &JwkSetView,
) -> Result<(), IdTokenError> {
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.as_str()),
        Some(_) => return Err(IdTokenError::Malformed("its kid is not a text")),
    };
    let mut tried = false;
    for candidate in keys.candidates(kid, algorithm) {
        tried = true;
        let verdict =
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), &candidate.key, algorithm.algorithm);
        if verdict.unwrap_or(false) {
            return Ok(());
        }
    }
    // Without a `kid`, keys that do not fit may just be old ones.
    Err(if tried && kid.is_some() { IdTokenError::Signature } else { IdTokenError::UnknownKey })
}

fn check_claims(
    claims: &Map<String, Value>,
    algorithm: &SignatureAlgorithm,
    checks: &IdTokenChecks<'_>,
) -> Result<IdTokenClaims, IdTokenError> {
    let iss = text(claims, "iss")?;
    if iss != checks.issuer {
        return Err(IdTokenError::Issuer {
            expected: printable(checks.issuer, 300),
            found: printable(iss, 300),
        });
    }
    let sub = text(claims, "sub")?;
    // OpenID Connect Core section 2: at most 255 characters.
    if sub.is_empty() || sub.len() > 255 || sub.chars().any(char::is_control) {
        return Err(IdTokenError::Claim("sub"));
    }
    let aud = audiences(claims)?;
    if !aud.iter().any(|audience| audience == checks.client_id) {
        return Err(IdTokenError::Audience);
    }
    let azp = match claims.get("azp") {
        None | Some(Value::Null) => None,
        Some(_) => Some(text(claims, "azp")?),
    };
    if azp.map_or(aud.len() > 1, |azp| azp != checks.client_id) {
        return Err(IdTokenError::AuthorizedParty);
    }
    let exp = moment(claims, "exp")?.ok_or(IdTokenError::Claim("exp"))?;
    if exp.after(SKEW) <= checks.now {
        return Err(IdTokenError::Expired);
    }
    let iat = moment(claims, "iat")?.ok_or(IdTokenError::Claim("iat"))?;
    if iat > checks.now.after(SKEW) || iat < checks.now.before(OLDEST) {
        return Err(IdTokenError::IssuedAt);
    }
    if let Some(nonce) = checks.nonce {
        let found = claims.get("nonce").and_then(Value::as_str).unwrap_or_default();
        if !bool::from(found.as_bytes().ct_eq(nonce.expose().as_bytes())) {
            return Err(IdTokenError::Nonce);
        }
    }
    if let (Some(hash), Some(access_token)) = (claims.get("at_hash"), checks.access_token)
        && hash.as_str() != Some(&at_hash(algorithm, access_token))
    {
        return Err(IdTokenError::AccessTokenHash);
    }
    Ok(IdTokenClaims {
        iss: iss.to_owned(),
        sub: sub.to_owned(),
        azp: azp.map(str::to_owned),
        aud,
        exp,
        iat,
        auth_time: moment(claims, "auth_time")?,
    })
}

fn text<'c>(claims: &'c Map<String, Value>, name: &'static str) -> Result<&'c str, IdTokenError> {
    claims.get(name).and_then(Value::as_str).ok_or(IdTokenError::Claim(name))
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, IdTokenError> {
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(many)) if many.len() <= MAX_AUDIENCES => many
            .iter()
            .map(|audience| audience.as_str().map(str::to_owned).ok_or(IdTokenError::Claim("aud")))
            .collect(),
        _ => Err(IdTokenError::Claim("aud")),
    }
}

/// A NumericDate (RFC 7519 section 2), which may have a fraction.
fn moment(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, IdTokenError> {
    let seconds = match claims.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(_) => None,
    };
    let millis = seconds.filter(|seconds| *seconds >= 0.0).ok_or(IdTokenError::Claim(name))? * 1000.0;
    // Converting a float saturates.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and saturating"
    )]
    Ok(Some(Timestamp::from_millis(millis as u64)))
}

/// The left half of the access token's hash (OpenID Connect Core section 3.1.3.6).
fn at_hash(algorithm: &SignatureAlgorithm, access_token: &AccessToken) -> String {
    let hash = match algorithm.algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => &digest::SHA384,
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => &digest::SHA512,
        _ => &digest::SHA256,
    };
    let whole = digest::digest(hash, access_token.expose().as_bytes());
    let (left, _) = whole.as_ref().split_at(whole.as_ref().len() / 2);
    URL_SAFE_NO_PAD.encode(left)
}

#[cfg(test)]
mod tests;
