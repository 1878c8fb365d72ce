//! Key stores in PKCS#12 (RFC 7292), also called PFX.

use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error;

use super::Material;
use super::error::KeyError;
use super::pair::Pair;
use crate::protocol::secret::Secret;

/// Whether `der` begins as a key store does: a sequence whose first member is version 3.
pub(super) fn is_one(der: &[u8]) -> bool {
    let length_octets = match der.get(1) {
        Some(short) if *short < 0x80 => 0,
        Some(long) => usize::from(long & 0x7f),
        None => return false,
    };
    let body = der.get(2 + length_octets..).unwrap_or_default();
    der[0] == 0x30 && body.starts_with(&[0x02, 0x01, 0x03])
}

/// Reads its one private key, and all certificates.
pub(super) fn read(der: &[u8], password: Option<&Secret>) -> Result<Material, KeyError> {
    // A store without a password has the empty one.
    let given = password.map_or("", Secret::expose);
    let archive = Pkcs12Archive::from_pkcs12(der, given).map_err(|error| match error {
        Error::UnsupportedEncryptionScheme | Error::UnsupportedMacAlgorithm | Error::InvalidParameters => {
            KeyError::Encryption
        }
        Error::InvalidVersion | Error::UnsupportedContentType => KeyError::Unreadable,
        Error::UnsupportedCertificateType | Error::X509Error(_) => KeyError::Certificate,
        // The rest is what a wrong password leads to.
        _ if password.is_none() => KeyError::PasswordMissing,
        _ => KeyError::WrongPassword,
    })?;
    let keys = archive.keys.iter().map(|bag| Pair::from_pkcs8(bag.key.as_der()));
    let certificates = archive.certs.iter().map(|bag| bag.cert.as_der().to_vec()).collect();
    Material::of(keys.collect::<Result<_, _>>()?, certificates)
}
