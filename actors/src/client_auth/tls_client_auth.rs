//! `tls_client_auth` and `self_signed_tls_client_auth`: the connection shows a certificate, and the
//! request names whose it is (RFC 8705 section 2). The server alone tells the two apart: by the
//! certificate's subject, or by the certificate itself.

use std::sync::Arc;

use super::{ClientAuthContext, ClientAuthError, ClientAuthentication};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

/// The certificate is signed by an authority that the server trusts.
pub(super) const PKI: &str = "tls_client_auth";
/// The certificate itself is registered.
pub(super) const SELF_SIGNED: &str = "self_signed_tls_client_auth";

#[derive(Debug)]
struct Certificate;

pub(super) fn build(_: &mut Settings) -> Result<Arc<dyn ClientAuthentication>, SettingsError> {
    Ok(Arc::new(Certificate))
}

impl ClientAuthentication for Certificate {
    fn needs_certificate(&self) -> bool {
        true
    }

    fn authenticate(
        &self,
        context: &ClientAuthContext<'_>,
        request: &mut TokenRequest,
    ) -> Result<(), ClientAuthError> {
        request.param("client_id", context.client_id);
        Ok(())
    }
}
