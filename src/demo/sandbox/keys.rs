//! The key that signs ID tokens, made anew at every start.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// The one algorithm (RFC 7518 section 3.4).
pub const ALGORITHM: &str = "ES256";

const KEY_ID: &str = "sandbox-1";

/// A P-256 key pair.
pub struct SigningKey {
    private: EncodingKey,
    /// Uncompressed point: 0x04, x, y.
    public: Vec<u8>,
}

impl SigningKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, Unspecified> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())
            .map_err(|_| Unspecified)?;
        Ok(Self {
            private: EncodingKey::from_ec_der(pkcs8.as_ref()),
            public: pair.public_key().as_ref().to_vec(),
        })
    }

    /// The public half (RFC 7517).
    pub fn jwk_set(&self) -> Value {
        let coordinates = self.public.get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": ALGORITHM, "kid": KEY_ID,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }

    /// A signed JWT with `claims`.
    pub fn sign(&self, claims: &Value) -> Result<String, jsonwebtoken::errors::Error> {
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.private)
    }
}
