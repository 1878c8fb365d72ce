//! Keys that we sign with: assertions, request objects, proofs of possession, SAML.
//!
//! Reading order: this file, `pair` (what signs), then one file a form that keys come in.

mod algorithm;
mod certificate;
mod error;
mod jwk;
mod pair;
mod pem;
mod pkcs12;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub use algorithm::{KeyType, SignatureAlgorithm, UnknownAlgorithm};
pub use error::KeyError;

use super::secret::{Secret, SecretBytes};
use crate::clock::Timestamp;
use certificate::Chain;
use pair::Pair;

/// What a key file holds.
struct Material {
    pair: Pair,
    certificates: Vec<Vec<u8>>,
    /// A JWK's own `kid`.
    kid: Option<String>,
    /// A JWK's own `alg`.
    algorithm: Option<SignatureAlgorithm>,
}

impl Material {
    fn of(mut keys: Vec<Pair>, certificates: Vec<Vec<u8>>) -> Result<Self, KeyError> {
        match (keys.len(), keys.pop()) {
            (1, Some(pair)) => Ok(Self { pair, certificates, kid: None, algorithm: None }),
            (0, _) => Err(KeyError::NoPrivateKey),
            (several, _) => Err(KeyError::Several(several)),
        }
    }
}

/// A private key, the algorithm it signs with, and its certificates, if any. Cloning shares it.
#[derive(Clone)]
pub struct SigningKey(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    pair: Arc<Pair>,
    algorithm: SignatureAlgorithm,
    kid: String,
    thumbprint: String,
    public_der: Vec<u8>,
    chain: Option<Chain>,
}

impl SigningKey {
    /// Reads a private key: PEM (PKCS#1, SEC 1, PKCS#8 also encrypted, with certificates beside it),
    /// PKCS#12, bare DER, base64 of one of these, or a JWK. It signs with `algorithm`, otherwise with
    /// the JWK's own or the usual one of its type (`RS256`, `ES256`, `ES384`, `EdDSA`).
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with it.
    pub fn load(
        material: &[u8],
        password: Option<&Secret>,
        algorithm: Option<SignatureAlgorithm>,
    ) -> Result<Self, KeyError> {
        let material = read(material, password)?;
        let key_type = material.pair.key_type();
        let algorithm = algorithm.or(material.algorithm).unwrap_or_else(|| key_type.default_algorithm());
        let mut key = Self::of(material.pair, algorithm)?;
        if !material.certificates.is_empty() {
            let chain = Chain::of_key(material.certificates, &key.0.public_der)?;
            key = key.with(|parts| parts.chain = Some(chain));
        }
        Ok(match material.kid {
            Some(kid) => key.with_kid(kid),
            None => key,
        })
    }

    /// A new key for `algorithm`, RSA of 2048 bits. It is made of the crypto library's own
    /// randomness.
    ///
    /// # Errors
    /// [`KeyError::Internal`].
    pub fn generate(algorithm: SignatureAlgorithm) -> Result<Self, KeyError> {
        Self::of(Pair::generate(algorithm)?, algorithm)
    }

    fn of(pair: Pair, algorithm: SignatureAlgorithm) -> Result<Self, KeyError> {
        let found = pair.key_type();
        if algorithm.key_type() != found {
            return Err(KeyError::WrongType { algorithm, found });
        }
        let thumbprint = thumbprint(&pair);
        let public_der = pair.public_der()?;
        let kid = thumbprint.clone();
        let pair = Arc::new(pair);
        Ok(Self(Arc::new(Parts { pair, algorithm, kid, thumbprint, public_der, chain: None })))
    }

    fn with(&self, change: impl FnOnce(&mut Parts)) -> Self {
        let mut parts = Parts::clone(&self.0);
        change(&mut parts);
        Self(Arc::new(parts))
    }

    /// The key under another key identifier (RFC 7515 section 4.1.4).
    #[must_use]
    pub fn with_kid(&self, kid: impl Into<String>) -> Self {
        let kid = kid.into();
        self.with(|parts| parts.kid = kid)
    }

    /// The key with its certificate, PEM or DER; PEM may hold the chain above it as well.
    ///
    /// # Errors
    /// [`KeyError::Certificate`], [`KeyError::OtherCertificate`].
    pub fn with_certificate(&self, material: &[u8]) -> Result<Self, KeyError> {
        let chain = Chain::of_key(certificate::read(material)?, &self.0.public_der)?;
        Ok(self.with(|parts| parts.chain = Some(chain)))
    }

    /// What it signs with.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm
    }

    /// Its identifier: the configured one, else the JWK's own, else its thumbprint.
    pub fn kid(&self) -> &str {
        &self.0.kid
    }

    /// Its JWK thumbprint with SHA-256, in base64url (RFC 7638).
    pub fn thumbprint(&self) -> &str {
        &self.0.thumbprint
    }

    /// Signs `message`. The signature is in JOSE form (RFC 7518 section 3), which for ECDSA is also
    /// XML Signature's: r and s, one after the other.
    ///
    /// # Errors
    /// [`KeyError::Internal`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.0.pair.sign(self.0.algorithm, message)
    }

    /// The public key alone, with the members that its thumbprint is made of: for the `jwk` header
    /// parameter (RFC 9449 section 4.2).
    pub fn bare_jwk(&self) -> Value {
        Value::Object(self.0.pair.public_members())
    }

    /// The public key for a key set (RFC 7517), with `kid`, `alg`, `use` and its certificates.
    pub fn public_jwk(&self) -> Value {
        let mut members = self.0.pair.public_members();
        members.insert("kid".into(), json!(self.kid()));
        members.insert("alg".into(), json!(self.algorithm().name()));
        members.insert("use".into(), json!("sig"));
        if let (Some(chain), Some(thumbprint)) = (&self.0.chain, self.x5t_s256()) {
            let certificates: Vec<String> =
                chain.certificates.iter().map(|der| STANDARD.encode(der)).collect();
            members.insert("x5c".into(), json!(certificates));
            members.insert("x5t#S256".into(), json!(thumbprint));
        }
        Value::Object(members)
    }

    /// The public key as `SubjectPublicKeyInfo` in DER (RFC 5280 section 4.1).
    pub fn public_key_der(&self) -> &[u8] {
        &self.0.public_der
    }

    /// The private key as PKCS#8 in DER: what [`load`](Self::load) reads again. For sealed records
    /// alone.
    ///
    /// # Errors
    /// [`KeyError::Internal`].
    pub fn to_pkcs8(&self) -> Result<SecretBytes, KeyError> {
        self.0.pair.private_der()
    }

    /// Its certificates in DER, its own first; empty if it has none.
    pub fn certificates(&self) -> &[Vec<u8>] {
        self.0.chain.as_ref().map_or(&[], |chain| &chain.certificates)
    }

    /// `x5t` of its certificate (RFC 7515 section 4.1.7).
    pub fn x5t(&self) -> Option<String> {
        self.certificates().first().map(|der| certificate::x5t(der))
    }

    /// `x5t#S256` of its certificate (RFC 7515 section 4.1.8).
    pub fn x5t_s256(&self) -> Option<String> {
        self.certificates().first().map(|der| certificate::x5t_s256(der))
    }

    /// From when until when its certificate is valid.
    pub fn certificate_validity(&self) -> Option<(Timestamp, Timestamp)> {
        self.0.chain.as_ref().map(|chain| chain.validity)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.0.algorithm)
            .field("kid", &self.0.kid)
            .finish_non_exhaustive()
    }
}

/// The same private key under the same name.
impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (&self.0, &other.0);
        (&one.thumbprint, &one.kid, one.algorithm) == (&other.thumbprint, &other.kid, other.algorithm)
    }
}

impl Eq for SigningKey {}

fn read(material: &[u8], password: Option<&Secret>) -> Result<Material, KeyError> {
    let Ok(text) = std::str::from_utf8(material) else { return pem::read_der(material, password) };
    let text = text.trim();
    if text.starts_with('{') {
        return jwk::read(text.as_bytes());
    }
    if text.contains("-----BEGIN ") {
        return pem::read(text, password);
    }
    // Bytes in a variable of the environment.
    let packed: String = text.split_ascii_whitespace().collect();
    let der = STANDARD.decode(zeroize::Zeroizing::new(packed).as_bytes()).map(zeroize::Zeroizing::new);
    match der {
        Ok(der) if der.first() == Some(&0x30) => pem::read_der(&der, password),
        _ => Err(KeyError::Unreadable),
    }
}

/// RFC 7638 section 3: the required members in the order of their names, without white space.
fn thumbprint(pair: &Pair) -> String {
    let mut members: Vec<_> = pair.public_members().into_iter().collect();
    members.sort_by(|one, other| one.0.cmp(&other.0));
    let members: Vec<String> =
        members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    let text = format!("{{{}}}", members.join(","));
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

#[cfg(test)]
mod tests;
