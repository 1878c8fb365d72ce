//! Signed JWTs that others made: taken apart, verified, and the claims that all kinds have in common
//! (RFC 7519, RFC 8725). What a kind of token adds is checked where that kind is.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use thiserror::Error;

use super::jwk::{JwkSetView, SignatureAlgorithm, find_algorithm};
use super::printable::printable;
use super::strict_json;
use crate::clock::Timestamp;

/// Clocks may differ by this much.
pub const SKEW: Duration = Duration::from_secs(60);
/// More audiences than this are no token's.
const MAX_AUDIENCES: usize = 64;

/// Why a JWT is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JwtError {
    /// Not a signed JWT in compact form.
    #[error("it is not a signed JWT: {0}")]
    Malformed(&'static str),
    /// Signed with an algorithm that is not allowed. `none` and the `HS` family never are.
    #[error("its algorithm {0:?} is not allowed")]
    Algorithm(String),
    /// No key of the set suits: fetch the set anew, once.
    #[error("it is signed with a key that is not in the key set")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is absent or of the wrong type.
    #[error("its claim {0} is missing or not of the right type")]
    Claim(&'static str),
}

/// A JWT taken apart. Nothing in it is to be believed before [`SignedJwt::verify`].
#[derive(Debug)]
pub struct SignedJwt<'t> {
    message: &'t str,
    signature: &'t str,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

const NOT_COMPACT: JwtError = JwtError::Malformed("it does not have three parts");

impl<'t> SignedJwt<'t> {
    /// Takes a token of at most `longest` bytes apart.
    ///
    /// # Errors
    /// [`JwtError::Malformed`].
    pub fn parse(token: &'t str, longest: usize) -> Result<Self, JwtError> {
        if token.len() > longest {
            return Err(JwtError::Malformed("it is too long"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(NOT_COMPACT)?;
        let (header, claims) = message.split_once('.').ok_or(NOT_COMPACT)?;
        if claims.contains('.') {
            return Err(JwtError::Malformed("it is encrypted, or not in compact form"));
        }
        Ok(Self { message, signature, header: part(header)?, claims: part(claims)? })
    }

    /// A claim of text that nobody has vouched for yet: it may choose keys, and nothing else.
    pub fn unverified(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// The algorithm that the header names, if `allowed` says so. `none` and the `HS` family are
    /// refused whatever it says (RFC 8725 section 3.1).
    ///
    /// # Errors
    /// [`JwtError::Algorithm`], and [`JwtError::Malformed`] for critical header parameters.
    pub fn algorithm(&self, allowed: impl Fn(&str) -> bool) -> Result<&'static SignatureAlgorithm, JwtError> {
        let name =
            self.header.get("alg").and_then(Value::as_str).ok_or(JwtError::Malformed("it has no alg"))?;
        let algorithm = find_algorithm(name)
            .filter(|_| allowed(name))
            .ok_or_else(|| JwtError::Algorithm(printable(name, 32)))?;
        if self.header.contains_key("crit") {
            return Err(JwtError::Malformed("it has critical header parameters, and we know none"));
        }
        Ok(algorithm)
    }

    /// `typ` in lower case and without `application/`; `jwt` if there is none (RFC 8725 section 3.11).
    pub fn typ(&self) -> String {
        let typ = self.header.get("typ").and_then(Value::as_str).unwrap_or("jwt").to_ascii_lowercase();
        typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned)
    }

    /// Verifies the signature. The header chooses nothing but a key of `keys`; `jku`, `x5u`, `jwk` and
    /// `x5c` are not looked at (RFC 8725 section 3.10).
    ///
    /// # Errors
    /// [`JwtError::UnknownKey`], [`JwtError::Signature`].
    pub fn verify(
        &self,
        algorithm: &SignatureAlgorithm,
        keys: &JwkSetView,
    ) -> Result<&Map<String, Value>, JwtError> {
        let kid = match self.header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.as_str()),
            Some(_) => return Err(JwtError::Malformed("its kid is not a text")),
        };
        let mut tried = false;
        for candidate in keys.candidates(kid, algorithm) {
            tried = true;
            let verdict = jsonwebtoken::crypto::verify(
                self.signature,
                self.message.as_bytes(),
                &candidate.key,
                algorithm.algorithm,
            );
            if verdict.unwrap_or(false) {
                return Ok(&self.claims);
            }
        }
        // Without a `kid`, keys that do not fit may just be old ones.
        Err(if tried && kid.is_some() { JwtError::Signature } else { JwtError::UnknownKey })
    }
}

fn part(text: &str) -> Result<Map<String, Value>, JwtError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| JwtError::Malformed("a part is not base64url without padding"))?;
    strict_json::object(&bytes).map_err(|_| JwtError::Malformed("a part is not a plain JSON object"))
}

/// A claim that must be text.
///
/// # Errors
/// [`JwtError::Claim`].
pub fn text<'c>(claims: &'c Map<String, Value>, name: &'static str) -> Result<&'c str, JwtError> {
    claims.get(name).and_then(Value::as_str).ok_or(JwtError::Claim(name))
}

/// Whom the token is for: one text or several (RFC 7519 section 4.1.3).
///
/// # Errors
/// [`JwtError::Claim`].
pub fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, JwtError> {
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(many)) if many.len() <= MAX_AUDIENCES => many
            .iter()
            .map(|audience| audience.as_str().map(str::to_owned).ok_or(JwtError::Claim("aud")))
            .collect(),
        _ => Err(JwtError::Claim("aud")),
    }
}

/// A NumericDate (RFC 7519 section 2), which may have a fraction.
///
/// # Errors
/// [`JwtError::Claim`] if it is there and is none.
pub fn moment(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, JwtError> {
    let seconds = match claims.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(_) => None,
    };
    let millis = seconds.filter(|seconds| *seconds >= 0.0).ok_or(JwtError::Claim(name))? * 1000.0;
    // Converting a float saturates.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and saturating"
    )]
    Ok(Some(Timestamp::from_millis(millis as u64)))
}
