//! A private key that can sign, whatever form it was read from.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pkcs8::der::Decode as _;
use pkcs8::der::asn1::ObjectIdentifier;
use serde_json::{Map, Value, json};

use super::algorithm::{KeyType, SignatureAlgorithm};
use super::error::KeyError;
use crate::protocol::secret::SecretBytes;

/// RFC 7518 section 3.3.
const SMALLEST_RSA: usize = 2048;
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A private key.
pub(super) enum Pair {
    Rsa(RsaKeyPair),
    Ec(KeyType, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pair({})", self.key_type())
    }
}

/// Big-endian numbers of an RSA key.
pub(super) struct RsaNumbers<'a> {
    pub(super) n: &'a [u8],
    pub(super) e: &'a [u8],
    pub(super) d: &'a [u8],
    pub(super) p: &'a [u8],
    pub(super) q: &'a [u8],
    pub(super) dp: &'a [u8],
    pub(super) dq: &'a [u8],
    pub(super) qi: &'a [u8],
}

impl Pair {
    /// From PKCS#8 (RFC 5208, RFC 5958).
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let info = pkcs8::PrivateKeyInfoRef::from_der(der).map_err(|_| KeyError::Unreadable)?;
        match info.algorithm.oid {
            RSA => Self::from_pkcs1(info.private_key.as_bytes()),
            RSA_PSS => Err(KeyError::Unsupported("RSASSA-PSS-only".into())),
            EC => {
                let curve = info.algorithm.parameters_oid().map_err(|_| KeyError::Damaged("EC"))?;
                let curve = curve_of(curve)?;
                Self::ec(curve, |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der).ok())
            }
            ED25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
                .map(Self::Ed25519)
                .map_err(|_| KeyError::Damaged("Ed25519")),
            other => Err(KeyError::Unsupported(other.to_string())),
        }
    }

    /// From PKCS#1 (RFC 8017 appendix A.1.2).
    pub(super) fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        let key = pkcs1::RsaPrivateKeyRef::from_der(der).map_err(|_| KeyError::Damaged("RSA"))?;
        Self::from_rsa(&RsaNumbers {
            n: key.modulus.as_bytes(),
            e: key.public_exponent.as_bytes(),
            d: key.private_exponent.as_bytes(),
            p: key.prime1.as_bytes(),
            q: key.prime2.as_bytes(),
            dp: key.exponent1.as_bytes(),
            dq: key.exponent2.as_bytes(),
            qi: key.coefficient.as_bytes(),
        })
    }

    /// From the numbers of an RSA key, which must agree with each other.
    pub(super) fn from_rsa(numbers: &RsaNumbers<'_>) -> Result<Self, KeyError> {
        let bits = bits_of(numbers.n);
        if bits < SMALLEST_RSA {
            return Err(KeyError::TooSmall(bits));
        }
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n: numbers.n, e: numbers.e },
            d: numbers.d,
            p: numbers.p,
            q: numbers.q,
            dP: numbers.dp,
            dQ: numbers.dq,
            qInv: numbers.qi,
        };
        RsaKeyPair::from_components(&components).map(Self::Rsa).map_err(|_| KeyError::Damaged("RSA"))
    }

    /// From SEC 1 (RFC 5915), whose curve may be named in it or by what is around it.
    pub(super) fn from_sec1(der: &[u8]) -> Result<Self, KeyError> {
        for curve in [KeyType::P256, KeyType::P384] {
            if let Ok(pair) = Self::ec(curve, |alg| EcdsaKeyPair::from_private_key_der(alg, der).ok()) {
                return Ok(pair);
            }
        }
        Err(KeyError::Unsupported("EC (neither P-256 nor P-384, or damaged)".into()))
    }

    /// From the private number and the point of an EC key.
    pub(super) fn from_point(curve: KeyType, private: &[u8], point: &[u8]) -> Result<Self, KeyError> {
        Self::ec(curve, |alg| EcdsaKeyPair::from_private_key_and_public_key(alg, private, point).ok())
    }

    /// From an Ed25519 seed and its public key.
    pub(super) fn from_seed(seed: &[u8], public: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_seed_and_public_key(seed, public)
            .map(Self::Ed25519)
            .map_err(|_| KeyError::Damaged("Ed25519"))
    }

    /// A new key for `algorithm`, RSA of 2048 bits, from the crypto library's own randomness.
    pub(super) fn generate(algorithm: SignatureAlgorithm) -> Result<Self, KeyError> {
        let internal = |_| KeyError::Internal;
        match algorithm.key_type() {
            KeyType::Rsa => {
                let size = aws_lc_rs::rsa::KeySize::Rsa2048;
                RsaKeyPair::generate(size).map(Self::Rsa).map_err(internal)
            }
            KeyType::Ed25519 => Ed25519KeyPair::generate().map(Self::Ed25519).map_err(internal),
            curve => {
                let algorithm = curve.ecdsa().ok_or(KeyError::Internal)?;
                EcdsaKeyPair::generate(algorithm).map(|pair| Self::Ec(curve, pair)).map_err(internal)
            }
        }
    }

    fn ec(
        curve: KeyType,
        read: impl FnOnce(&'static aws_lc_rs::signature::EcdsaSigningAlgorithm) -> Option<EcdsaKeyPair>,
    ) -> Result<Self, KeyError> {
        let pair = curve.ecdsa().and_then(read).ok_or(KeyError::Damaged("EC"))?;
        Ok(Self::Ec(curve, pair))
    }

    pub(super) fn key_type(&self) -> KeyType {
        match self {
            Self::Rsa(_) => KeyType::Rsa,
            Self::Ec(curve, _) => *curve,
            Self::Ed25519(_) => KeyType::Ed25519,
        }
    }

    /// The signature in JOSE form (RFC 7518 section 3).
    pub(super) fn sign(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let rng = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding = algorithm.rsa().ok_or(KeyError::Internal)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &rng, message, &mut signature).map_err(|_| KeyError::Internal)?;
                Ok(signature)
            }
            Self::Ec(_, pair) => {
                let signature = pair.sign(&rng, message).map_err(|_| KeyError::Internal)?;
                Ok(signature.as_ref().to_vec())
            }
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// The members of the public key that RFC 7638 section 3.2 has in a thumbprint, and no others.
    pub(super) fn public_members(&self) -> Map<String, Value> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let members = match self {
            Self::Rsa(pair) => {
                let key = pair.public_key();
                let n = text(key.modulus().big_endian_without_leading_zero());
                let e = text(key.exponent().big_endian_without_leading_zero());
                json!({ "kty": "RSA", "n": n, "e": e })
            }
            Self::Ec(curve, pair) => {
                // 0x04 and both coordinates, each as long as the curve's field (SEC 1 section 2.3.3).
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                let crv = if *curve == KeyType::P256 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": crv, "x": text(x), "y": text(y) })
            }
            Self::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()) })
            }
        };
        match members {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    /// The public key as `SubjectPublicKeyInfo` (RFC 5280 section 4.1).
    pub(super) fn public_der(&self) -> Result<Vec<u8>, KeyError> {
        let der: Result<PublicKeyX509Der<'_>, _> = match self {
            Self::Rsa(pair) => pair.public_key().as_der(),
            Self::Ec(_, pair) => pair.public_key().as_der(),
            Self::Ed25519(pair) => pair.public_key().as_der(),
        };
        der.map(|der| der.as_ref().to_vec()).map_err(|_| KeyError::Internal)
    }

    /// The private key as PKCS#8.
    pub(super) fn private_der(&self) -> Result<SecretBytes, KeyError> {
        let bytes = match self {
            Self::Rsa(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair).map(|der| der.as_ref().to_vec()),
            Self::Ec(_, pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Self::Ed25519(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair).map(|der| der.as_ref().to_vec()),
        };
        bytes.map(SecretBytes::new).map_err(|_| KeyError::Internal)
    }
}

fn curve_of(oid: ObjectIdentifier) -> Result<KeyType, KeyError> {
    match oid {
        P256 => Ok(KeyType::P256),
        P384 => Ok(KeyType::P384),
        other => Err(KeyError::Unsupported(format!("EC (curve {other})"))),
    }
}

fn bits_of(number: &[u8]) -> usize {
    let number = number.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &number[at..]);
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}
