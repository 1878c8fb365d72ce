//! ID tokens: signature and claims (OpenID Connect Core 1.0 sections 2, 3.1.3.6 and 3.1.3.7).

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::jwk::{JwkSetView, SignatureAlgorithm};
use super::jwt::{JwtError, SKEW, SignedJwt, audiences, moment, text};
use super::printable::printable;
use super::secret::Secret;
use super::token::{AccessToken, IdentityClaims};
use crate::clock::Timestamp;

/// An ID token that was issued earlier than this was not issued for our request.
const OLDEST: Duration = Duration::from_secs(24 * 3600);
const MAX_TOKEN: usize = 64 * 1024;

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

impl From<JwtError> for IdTokenError {
    fn from(error: JwtError) -> Self {
        match error {
            JwtError::Malformed(what) => Self::Malformed(what),
            JwtError::Algorithm(name) => Self::Algorithm(name),
            JwtError::UnknownKey => Self::UnknownKey,
            JwtError::Signature => Self::Signature,
            JwtError::Claim(name) => Self::Claim(name),
        }
    }
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
    /// How strongly the person logged in: the class of it.
    pub acr: Option<String>,
}

impl IdTokenClaims {
    /// What is kept with the token set.
    pub fn identity(&self) -> IdentityClaims {
        IdentityClaims { iss: self.iss.clone(), sub: self.sub.clone() }
    }
}

/// Verifies signature and claims. The header chooses nothing but a key of `keys` and an algorithm
/// of the pinned ones.
pub fn verify(
    token: &Secret,
    keys: &JwkSetView,
    checks: &IdTokenChecks<'_>,
) -> Result<IdTokenClaims, IdTokenError> {
    let token = SignedJwt::parse(token.expose(), MAX_TOKEN)?;
    let algorithm = token.algorithm(|name| checks.allowed_algs.iter().any(|allowed| allowed == name))?;
    // RFC 8725 section 3.11: other kinds of JWT from the same issuer have their own `typ`.
    if token.typ().ends_with("+jwt") {
        return Err(IdTokenError::Malformed("its typ is that of another kind of token"));
    }
    check_claims(token.verify(algorithm, keys)?, algorithm, checks)
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
        acr: claims.get("acr").and_then(Value::as_str).map(str::to_owned),
    })
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
