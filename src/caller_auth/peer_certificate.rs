//! The client certificate of a caller's connection, and the names in it (RFC 5280 section 4.2.1.6).
//!
//! Names are compared as they stand: a wildcard in a certificate is no more than a name with a star in it,
//! and the subject's common name says nothing.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest;
use claviger_actors::clock::Timestamp;
use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use url::Url;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::client_tls::validity;

/// Names looked at in one certificate. Each costs a look-up with every request.
const MAX_NAMES: usize = 128;
/// Longest DNS name, in bytes (RFC 1035 section 2.3.4).
const MAX_DNS_NAME: usize = 253;

/// A subject alternative name that can tell a caller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectAltName {
    /// `dNSName`, in lower case.
    Dns(String),
    /// `uniformResourceIdentifier`, such as a SPIFFE ID.
    Uri(String),
    /// `rfc822Name`, its host in lower case.
    Email(String),
    /// `iPAddress`
    Ip(IpAddr),
}

/// The text is none of the names that certificates have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "must be a DNS name, a URI, an email address or an IP address, as it stands in the certificate's \
     subject alternative names"
)]
pub struct SubjectAltNameError;

impl SubjectAltName {
    /// Reads a name as a configuration has it. Its look says which kind it is: an address, a URI by its
    /// colon, an email address by its `@`, or else a DNS name.
    ///
    /// # Errors
    /// [`SubjectAltNameError`].
    pub fn parse(text: &str) -> Result<Self, SubjectAltNameError> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SubjectAltNameError);
        }
        if text.contains(':') {
            return Url::parse(text).map(|_| Self::Uri(text.to_owned())).map_err(|_| SubjectAltNameError);
        }
        if text.contains('@') {
            return email(text).ok_or(SubjectAltNameError);
        }
        if text.len() <= MAX_DNS_NAME && text.split('.').all(is_label) {
            return Ok(Self::Dns(text.to_ascii_lowercase()));
        }
        Err(SubjectAltNameError)
    }

    /// A name of a certificate, if it is of a kind that can tell a caller.
    fn of(name: &GeneralName<'_>) -> Option<Self> {
        match *name {
            GeneralName::DNSName(name) => Some(Self::Dns(name.to_ascii_lowercase())),
            GeneralName::URI(uri) => Some(Self::Uri(uri.to_owned())),
            GeneralName::RFC822Name(address) => email(address),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Self::Ip(bytes.into())),
                16 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Self::Ip(bytes.into())),
                _ => None,
            },
            _ => None,
        }
    }
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(text) | Self::Uri(text) | Self::Email(text) => f.write_str(text),
            Self::Ip(ip) => fmt::Display::fmt(ip, f),
        }
    }
}

/// Hosts are the same in any case, mailboxes are not (RFC 5280 section 7.5).
fn email(text: &str) -> Option<SubjectAltName> {
    let (mailbox, host) = text.rsplit_once('@')?;
    let good = !mailbox.is_empty() && !host.is_empty();
    good.then(|| SubjectAltName::Email(format!("{mailbox}@{}", host.to_ascii_lowercase())))
}

fn is_label(label: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    label == "*" || ((1..=63).contains(&label.len()) && label.bytes().all(fits))
}

/// What a client showed when its connection was opened, verified. One for all requests on it.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    names: Vec<SubjectAltName>,
    fingerprint: [u8; 32],
    valid: (Timestamp, Timestamp),
}

impl PeerCertificate {
    /// The certificate of the client at the other end, if it showed one. The handshake must be over.
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        connection.peer_certificates()?.first().map(Self::read)
    }

    /// Reads a certificate that TLS has verified. One that cannot be read has no names.
    pub fn read(certificate: &CertificateDer<'_>) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        let Ok((_, parsed)) = parse_x509_certificate(certificate) else {
            let never = (Timestamp::from_secs(1), Timestamp::from_secs(0));
            return Self { names: Vec::new(), fingerprint, valid: never };
        };
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|extension| &extension.value.general_names);
        Self {
            names: names.filter_map(SubjectAltName::of).take(MAX_NAMES).collect(),
            fingerprint,
            valid: validity(&parsed),
        }
    }

    /// Its subject alternative names, of the kinds that can tell a caller.
    pub fn names(&self) -> &[SubjectAltName] {
        &self.names
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Whether it is valid: connections last, and sessions are resumed without it being shown again.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        let (from, until) = self.valid;
        from <= now && now <= until
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
