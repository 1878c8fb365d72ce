//! Why a key cannot be used.

use thiserror::Error;

use super::algorithm::{KeyType, SignatureAlgorithm};

/// Why a key cannot be loaded, or cannot sign. Whoever configured it must act. Holds no key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a form that we know.
    #[error("is neither PEM, PKCS#12, DER nor a JWK; give it a private key in one of these forms")]
    Unreadable,
    /// Only certificates, public keys or parameters.
    #[error("has no private key in it; give it the private key, not only its certificate or public half")]
    NoPrivateKey,
    /// More than one private key.
    #[error("has {0} private keys in it; keep one, and list further ones as an array")]
    Several(usize),
    /// It is encrypted.
    #[error("is encrypted; give its password as `signing_key_password`")]
    PasswordMissing,
    /// The password does not open it.
    #[error("cannot be opened with this `signing_key_password`; give the right one")]
    WrongPassword,
    /// Encrypted in a way that is too old.
    #[error(
        "is encrypted in a way that is no longer read; write it anew with `openssl pkcs8 -topk8 -v2 aes-256-cbc`"
    )]
    Encryption,
    /// In OpenSSH's own form.
    #[error("is in OpenSSH's form; convert a copy of it with `ssh-keygen -p -m PKCS8 -f COPY`")]
    OpenSsh,
    /// A kind of key that no algorithm of ours uses.
    #[error(
        "is a key of the kind {0}, which no signature algorithm here uses; take RSA, EC P-256, EC P-384 or Ed25519"
    )]
    Unsupported(String),
    /// The key is of the wrong kind for the algorithm.
    #[error("is an {found} key, but {algorithm} needs an {} key; take {}", .algorithm.key_type(), names(*.found))]
    WrongType {
        /// The configured algorithm.
        algorithm: SignatureAlgorithm,
        /// What the key is.
        found: KeyType,
    },
    /// RSA of less than 2048 bits (RFC 7518 section 3.3).
    #[error("is an RSA key of {0} bits; make one of at least 2048")]
    TooSmall(usize),
    /// The key is damaged.
    #[error("is not a valid {0} key; its parts are damaged or do not belong together")]
    Damaged(&'static str),
    /// A JWK that lacks something.
    #[error("is a JWK whose member `{0}` is missing or not what it should be")]
    JwkMember(&'static str),
    /// Not a certificate.
    #[error("has a certificate in it that cannot be read; give X.509 in PEM or DER form")]
    Certificate,
    /// The certificate is of another key.
    #[error("does not belong to the signing key; give the certificate that was issued for it")]
    OtherCertificate,
    /// Signing or generating failed within the crypto library.
    #[error("failed within the crypto library")]
    Internal,
}

/// The algorithms of a kind of key, as a choice.
fn names(key: KeyType) -> String {
    key.algorithms().map(SignatureAlgorithm::name).collect::<Vec<_>>().join(" or ")
}
