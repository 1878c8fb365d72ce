//! Signed JWTs in compact form (RFC 7515 section 7.1, RFC 7519).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use thiserror::Error;
use zeroize::Zeroizing;

use super::secret::Secret;
use super::signing_key::{KeyError, SigningKey};
use crate::clock::{Entropy, Timestamp};

/// An algorithm that signs with a shared secret (RFC 7518 section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MacAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

/// A name that is no [`MacAlgorithm`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("is no signature algorithm with a shared secret; known: HS256, HS384, HS512")]
pub struct UnknownMac;

impl MacAlgorithm {
    const ALL: [Self; 3] = [Self::Hs256, Self::Hs384, Self::Hs512];

    /// Its IANA name, as in `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Hs256 => hmac::HMAC_SHA256,
            Self::Hs384 => hmac::HMAC_SHA384,
            Self::Hs512 => hmac::HMAC_SHA512,
        }
    }
}

impl fmt::Display for MacAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for MacAlgorithm {
    type Err = UnknownMac;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or(UnknownMac)
    }
}

/// What a JWT is signed with.
#[derive(Clone, Copy, Debug)]
pub enum Signer<'a> {
    /// A key pair.
    Key(&'a SigningKey),
    /// The client's secret: its UTF-8 octets are the key (OpenID Connect Core section 10.1).
    Secret(MacAlgorithm, &'a Secret),
}

impl Signer<'_> {
    /// The value of `alg`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Key(key) => key.algorithm().name(),
            Self::Secret(algorithm, _) => algorithm.name(),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Key(key) => key.sign(message),
            Self::Secret(algorithm, secret) => {
                let key = hmac::Key::new(algorithm.hmac(), secret.expose().as_bytes());
                Ok(hmac::sign(&key, message).as_ref().to_vec())
            }
        }
    }
}

/// A JWT being put together.
#[derive(Clone, Debug)]
pub struct Jwt {
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl Jwt {
    /// A JWT with these claims and the type `JWT`.
    pub fn new(claims: Map<String, Value>) -> Self {
        Self { header: Map::from_iter([("typ".to_owned(), "JWT".into())]), claims }
    }

    /// Sets its type (RFC 8725 section 3.11).
    #[must_use]
    pub fn typ(self, typ: &str) -> Self {
        self.header("typ", typ)
    }

    /// Sets a header parameter. With `jwk`, the key is in the header itself and not named there.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Signs it. The header gets `alg`, and for a key pair `kid` and the thumbprints of its
    /// certificate, if it has one (RFC 7515 section 4.1): servers find the key by whichever they know.
    ///
    /// # Errors
    /// [`KeyError::Internal`].
    pub fn sign(mut self, signer: Signer<'_>) -> Result<Secret, KeyError> {
        self.header.insert("alg".into(), signer.algorithm().into());
        if let (Signer::Key(key), false) = (signer, self.header.contains_key("jwk")) {
            let names =
                [("kid", Some(key.kid().to_owned())), ("x5t", key.x5t()), ("x5t#S256", key.x5t_s256())];
            for (name, value) in names {
                if let Some(value) = value {
                    self.header.entry(name).or_insert_with(|| value.into());
                }
            }
        }
        let header = Value::Object(self.header).to_string();
        let claims = Zeroizing::new(Value::Object(self.claims).to_string());
        compact(header.as_bytes(), claims.as_bytes(), signer)
    }
}

/// The compact serialization of `payload`, signed (RFC 7515 section 7.1). `header` is JSON that names
/// the signer's algorithm.
///
/// # Errors
/// [`KeyError::Internal`].
pub fn compact(header: &[u8], payload: &[u8], signer: Signer<'_>) -> Result<Secret, KeyError> {
    // Room for the longest signature, RSA of 8192 bits: growing would leave an unwiped copy behind.
    let room = (header.len() + payload.len() + 1024).saturating_mul(2);
    let mut text = Zeroizing::new(String::with_capacity(room));
    URL_SAFE_NO_PAD.encode_string(header, &mut text);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut text);
    let signature = signer.sign(text.as_bytes())?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    Ok(Secret::new(std::mem::take(&mut *text)))
}

/// A value of `jti` that is not drawn twice: 128 random bits (RFC 7519 section 4.1.7).
pub fn unique_id(entropy: &dyn Entropy) -> String {
    let mut bytes = [0u8; 16];
    entropy.fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A NumericDate in whole seconds (RFC 7519 section 2).
pub fn numeric_date(at: Timestamp) -> Value {
    at.as_secs().into()
}

#[cfg(test)]
mod tests;
