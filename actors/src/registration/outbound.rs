//! How an authorization server is reached.

use std::sync::Arc;

/// How the servers of one provider are reached. The default is straight, trusting whom the system
/// trusts.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// TLS with a private CA or a client certificate of our own (RFC 8705), if not the common one.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}
