//! Whom the command line believes to be the gateway, where the admin listener speaks TLS.
//!
//! It reads the gateway's own configuration, so it knows the very certificate to expect, whatever names
//! are in it and whoever signed it.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::config::listener_tls::AdminCertificate;

/// TLS towards the admin listener at `address`. An error says what to do instead.
pub(super) fn client_config(
    expected: AdminCertificate,
    address: SocketAddr,
) -> Result<Arc<ClientConfig>, String> {
    if matches!(expected, AdminCertificate::MadeAtStart) && !address.ip().is_loopback() {
        return Err(
            "the gateway's admin listener has a self-signed certificate, which nobody else can know; \
                    ask from its own machine, or give it one by `tls = { cert, key }`"
                .to_owned(),
        );
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Known { expected, algorithms: provider.signature_verification_algorithms };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Believes whoever has the key of the expected certificate. One that was made at the start cannot be
/// known: then it is as without TLS on loopback, where the operating system says who listens.
#[derive(Debug)]
struct Known {
    expected: AdminCertificate,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.expected {
            AdminCertificate::Known(expected) if expected != shown => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
