//! TLS towards the outside: authorization servers and upstreams share one stack and one trust. And what
//! certificates of either side have in common.

use std::sync::Arc;

use claviger_actors::clock::Timestamp;
pub use claviger_actors::proxy::connect::TlsSetupError;
use claviger_actors::proxy::connect::tls_client_config_with_roots;
use rustls::{ClientConfig, RootCertStore};
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

/// Trusts the operating system's certificate authorities. If it has none, `https` fails and a
/// warning says why; `http` on loopback works all the same.
///
/// # Errors
/// [`TlsSetupError`].
pub fn trusting_the_system() -> Result<Arc<ClientConfig>, TlsSetupError> {
    tls_client_config_with_roots(roots_of_the_system())
}

/// The operating system's certificate authorities. If it has none, a warning says so.
pub fn roots_of_the_system() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        tracing::warn!(?errors, "no certificate authorities found: install ca-certificates for https");
    }
    roots
}

/// From when until when a certificate is valid.
pub fn validity(certificate: &X509Certificate<'_>) -> (Timestamp, Timestamp) {
    let at = |time: ASN1Time| Timestamp::from_secs(u64::try_from(time.timestamp()).unwrap_or(0));
    (at(certificate.validity().not_before), at(certificate.validity().not_after))
}
