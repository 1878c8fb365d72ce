//! Keys and certificates in PEM (RFC 7468) or as bare DER.

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::Decode as _;
use zeroize::Zeroizing;

use super::error::KeyError;
use super::pair::Pair;
use super::{Material, pkcs12};
use crate::protocol::secret::Secret;

/// Reads every block: one private key, and its certificates.
pub(super) fn read(text: &str, password: Option<&Secret>) -> Result<Material, KeyError> {
    // A variable of the environment often has its line ends written out.
    let unfolded = Zeroizing::new(text.replace("\\n", "\n"));
    let blocks = ::pem::parse_many(unfolded.as_bytes()).map_err(|_| KeyError::Unreadable)?;
    let (mut keys, mut certificates) = (Vec::new(), Vec::new());
    for block in blocks {
        let tag = block.tag().to_owned();
        // RFC 1421's own encryption, from before PKCS#8.
        let old = block.headers().get("Proc-Type").is_some_and(|value| value.contains("ENCRYPTED"));
        let der = Zeroizing::new(block.into_contents());
        match tag.as_str() {
            _ if old && password.is_none() => return Err(KeyError::PasswordMissing),
            _ if old => return Err(KeyError::Encryption),
            "PRIVATE KEY" => keys.push(Pair::from_pkcs8(&der)?),
            "RSA PRIVATE KEY" => keys.push(Pair::from_pkcs1(&der)?),
            "EC PRIVATE KEY" => keys.push(Pair::from_sec1(&der)?),
            "ENCRYPTED PRIVATE KEY" => keys.push(decrypt(&der, password)?),
            "OPENSSH PRIVATE KEY" => return Err(KeyError::OpenSsh),
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => certificates.push(der.to_vec()),
            _ => {}
        }
    }
    Material::of(keys, certificates)
}

/// The certificates of a PEM text, in order; none is allowed to be missing.
pub(super) fn certificates(text: &str) -> Result<Vec<Vec<u8>>, KeyError> {
    let blocks = ::pem::parse_many(text.replace("\\n", "\n")).map_err(|_| KeyError::Certificate)?;
    let certificates = blocks.into_iter().filter(|block| block.tag().ends_with("CERTIFICATE"));
    let certificates: Vec<_> = certificates.map(::pem::Pem::into_contents).collect();
    if certificates.is_empty() { Err(KeyError::Certificate) } else { Ok(certificates) }
}

/// Reads DER of whatever kind it is.
pub(super) fn read_der(der: &[u8], password: Option<&Secret>) -> Result<Material, KeyError> {
    if pkcs12::is_one(der) {
        return pkcs12::read(der, password);
    }
    if EncryptedPrivateKeyInfoRef::from_der(der).is_ok() {
        return Material::of(vec![decrypt(der, password)?], Vec::new());
    }
    if pkcs1::RsaPrivateKeyRef::from_der(der).is_ok() {
        return Material::of(vec![Pair::from_pkcs1(der)?], Vec::new());
    }
    match Pair::from_pkcs8(der) {
        Err(KeyError::Unreadable) => {}
        read => return Material::of(vec![read?], Vec::new()),
    }
    if super::certificate::is_one(der) {
        return Err(KeyError::NoPrivateKey);
    }
    let pair = Pair::from_sec1(der).map_err(|_| KeyError::Unreadable)?;
    Material::of(vec![pair], Vec::new())
}

/// Opens an encrypted PKCS#8 key (RFC 5958 section 3).
fn decrypt(der: &[u8], password: Option<&Secret>) -> Result<Pair, KeyError> {
    let encrypted = EncryptedPrivateKeyInfoRef::from_der(der).map_err(|_| KeyError::Encryption)?;
    let password = password.ok_or(KeyError::PasswordMissing)?;
    let opened = encrypted.decrypt(password.expose()).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(pkcs5) if !matches!(pkcs5, pkcs8::pkcs5::Error::DecryptFailed) => {
            KeyError::Encryption
        }
        // What comes out under a wrong password may also just make no sense.
        _ => KeyError::WrongPassword,
    })?;
    match Pair::from_pkcs8(opened.as_bytes()) {
        Err(KeyError::Unreadable) => Err(KeyError::WrongPassword),
        read => read,
    }
}
