//! The certificate that goes with a key (RFC 5280), and its thumbprints (RFC 7515 section 4.1.7).

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::KeyError;
use super::pem;
use crate::clock::Timestamp;

/// A certificate chain, that of the key itself first.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) certificates: Vec<Vec<u8>>,
    pub(super) validity: (Timestamp, Timestamp),
}

impl Chain {
    /// Puts the certificate of the key `public_der` first and leaves the others in their order.
    pub(super) fn of_key(mut certificates: Vec<Vec<u8>>, public_der: &[u8]) -> Result<Self, KeyError> {
        let mut own = None;
        for (index, der) in certificates.iter().enumerate() {
            let certificate = parse(der)?;
            if own.is_none() && certificate.public_key().raw == public_der {
                let validity = certificate.validity();
                own = Some((index, moment(validity.not_before), moment(validity.not_after)));
            }
        }
        let (index, from, until) = own.ok_or(KeyError::OtherCertificate)?;
        certificates[..=index].rotate_right(1);
        Ok(Self { certificates, validity: (from, until) })
    }
}

/// Whether `der` is a certificate.
pub(super) fn is_one(der: &[u8]) -> bool {
    parse(der).is_ok()
}

/// The certificates in PEM or DER.
pub(super) fn read(material: &[u8]) -> Result<Vec<Vec<u8>>, KeyError> {
    match std::str::from_utf8(material) {
        Ok(text) if text.contains("-----BEGIN ") => pem::certificates(text),
        _ => parse(material).map(|_| vec![material.to_vec()]),
    }
}

/// `x5t`: SHA-1, by which some servers find the certificate.
pub(super) fn x5t(certificate: &[u8]) -> String {
    thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate)
}

/// `x5t#S256` (RFC 7515 section 4.1.8, RFC 8705 section 3.1).
pub(super) fn x5t_s256(certificate: &[u8]) -> String {
    thumbprint(&digest::SHA256, certificate)
}

fn thumbprint(hash: &'static digest::Algorithm, certificate: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(hash, certificate))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, KeyError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(KeyError::Certificate),
    }
}

fn moment(time: x509_parser::time::ASN1Time) -> Timestamp {
    Timestamp::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}
