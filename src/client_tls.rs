//! TLS towards the outside: authorization servers and upstreams share one stack and one trust.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// The TLS stack refuses its own defaults. Our fault: it cannot happen with a good build.
#[derive(Debug, Clone, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsSetupError(#[from] rustls::Error);

/// Trusts the operating system's certificate authorities. If it has none, `https` fails and a
/// warning says why; `http` on loopback works all the same.
///
/// # Errors
/// [`TlsSetupError`].
pub fn trusting_the_system() -> Result<Arc<ClientConfig>, TlsSetupError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        tracing::warn!(?errors, "no certificate authorities found: install ca-certificates for https");
    }
    trusting(roots)
}

/// Trusts just `roots`. HTTP/1.1 only.
///
/// # Errors
/// [`TlsSetupError`].
pub fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsSetupError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}
