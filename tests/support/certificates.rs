//! Certificates made for one test: an authority, and what it signs.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

/// An authority whose files are in `folder`.
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
pub struct Certified {
    /// The certificate's file.
    pub cert: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// The certificate itself.
    pub der: Vec<u8>,
    /// The public point of its P-256 key: 0x04, x, y.
    point: Vec<u8>,
}

impl Authority {
    /// A new one; its certificate is `ca.pem` in `folder`.
    pub fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Not the name that what it signs has: that would look self-signed.
        params.distinguished_name.push(DnType::CommonName, "authority of one test");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signs itself");
        std::fs::write(folder.join("ca.pem"), issuer.pem()).expect("written");
        Self { folder: folder.to_owned(), issuer }
    }

    /// Its certificate's file.
    pub fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Its certificate.
    pub fn der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// Signs a certificate for these host names and addresses, in files named after `name`.
    pub fn certify(&self, name: &str, hosts: &[&str]) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(hosts).signed_by(&key, &self.issuer).expect("signed");
        Certified::write(&self.folder, name, &certificate, &key)
    }
}

impl Certified {
    /// A certificate that nobody vouches for.
    pub fn self_signed(folder: &Path, name: &str, hosts: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(hosts).self_signed(&key).expect("signs itself");
        Self::write(folder, name, &certificate, &key)
    }

    fn write(folder: &Path, name: &str, certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        let file = |ending: &str| folder.join(format!("{name}.{ending}"));
        let (cert, private) = (file("pem"), file("key"));
        std::fs::write(&cert, certificate.pem()).expect("written");
        std::fs::write(&private, key.serialize_pem()).expect("written");
        let point = key.public_key_raw().to_vec();
        Self { cert, key: private, der: certificate.der().to_vec(), point }
    }

    /// `x5t#S256` (RFC 8705 section 3.1).
    pub fn thumbprint(&self) -> String {
        thumbprint(&self.der)
    }

    /// The key set that a client with this self-signed certificate registers (RFC 8705 section 2.2.2).
    pub fn jwks(&self) -> Value {
        let (x, y) = self.point[1..].split_at(32);
        let text = |number: &[u8]| URL_SAFE_NO_PAD.encode(number);
        let x5c = [STANDARD.encode(&self.der)];
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": text(x), "y": text(y), "x5c": x5c }] })
    }
}

/// `x5t#S256` of a certificate in DER.
pub fn thumbprint(der: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, der))
}

fn params(hosts: &[&str]) -> CertificateParams {
    CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).expect("names")
}
