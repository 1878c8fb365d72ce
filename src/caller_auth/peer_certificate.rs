//! The client certificate of a caller's connection.

use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;

/// A client certificate that was verified in the TLS handshake.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// As it was sent.
    pub der: CertificateDer<'static>,
}

impl PeerCertificate {
    /// The certificate that the other side of `session` has shown, if it has.
    pub fn of(session: &ServerConnection) -> Option<Self> {
        let der = session.peer_certificates()?.first()?.clone().into_owned();
        Some(Self { der })
    }
}
